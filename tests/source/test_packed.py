"""Tiny text files next to each other are parsed together. The law: nothing else than that they are read faster."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.errors import DataError, SourceChanged
from penstock_service.source.conform import join_values
from penstock_service.source.formats import format_named
from penstock_service.source.place import LocalPlace
from penstock_service.source.read import _slice_values, read_task
from penstock_service.source.scan import Scanned
from penstock_service.source.text.blocks import RowBlock
from penstock_service.source.text.format import TextFormat
from penstock_service.source.text.jsonl import JsonLines
from penstock_service.source.text.packed import read_packed
from penstock_service.source.text.syntax import Head
from tests.source.files import scan_path, tasks

WORDS = st.sampled_from(["a", "b c", '"q"', "\u00e9", "x,y", "l\nm", ""])
JSON_ROWS = st.sampled_from(
    ['{"n": 1}', '{"n": 2.5, "s": "x"}', '{"s": "{,}"}', "", "  ", '{"n": null}', '{"n": oops}']
)
CSV_ROWS = st.sampled_from(["1,2", '3,"4"', "", ",", '5,"a\nb"', "6", '7,5" f'])
ENDS = st.sampled_from(["\n", "\r\n", ""])


def both(root: Path, scanned: Scanned) -> tuple[list[tuple[int, ChunkValue]], list[tuple[int, ChunkValue]]]:
    together = [item for task in tasks(str(root), scanned) for item in read_task(task)]
    alone = []
    for task in tasks(str(root), scanned):
        schema = scanned.schema
        for chunk, slices in zip(task.chunks, task.slices, strict=True):
            values = [value for s in slices for value in _slice_values(LocalPlace(task.root), [s], schema)]
            alone.append((chunk, join_values(values, schema)))
    return together, alone


def check(root: Path) -> None:
    try:
        scanned = scan_path(root)
    except DataError:  # files that disagree, or hold nothing that can be read
        assume(False)
    together, alone = both(root, scanned)
    assert len(together) == len(alone)
    for (chunk, value), (other_chunk, other) in zip(together, alone, strict=True):
        assert chunk == other_chunk
        assert value.stored_rows == other.stored_rows
        assert value.rows.equals(other.rows)
        assert value.errors == other.errors


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("jsonl", '{"a": 1}\n\n{"a": 2}'), ("json", '\ufeff[{"a": 1}, {"a":\n2}]'), ("txt", "a\r\n\nb")),
        *(("csv", 'a,b\r\n1,"x\ny"\n\n2,5" z'), ("tsv", "a\tb\n1\t2\n")),
    ],
)
def test_flawless_files_are_parsed_in_one_call(name: str, text: str, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.{name}").write_bytes(text.encode())
    scanned = scan_path(tmp_path)
    (task,) = tasks(str(tmp_path), scanned)
    kind = format_named("text" if name == "txt" else name)
    assert isinstance(kind, TextFormat)
    value = read_packed(kind.syntax, LocalPlace(str(tmp_path)), list(task.slices[0]), scanned.schema)
    assert value is not None
    check(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_files_read_together_give_what_they_give_alone(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("files")
    good = {".csv": "1,2\n", ".jsonl": '{"n": 1}\n', ".json": '{"n": 1}\n', ".txt": "t\n"}[suffix]
    header = "a,b\n" if suffix == ".csv" else ""
    (root / f"0{suffix}").write_text(header + good)
    for i in range(1, data.draw(st.integers(2, 12))):
        end = data.draw(ENDS)
        if suffix == ".csv":
            header = data.draw(st.sampled_from(["a,b\n", "a,b\r\n", "\ufeffa,b\n", "b,a\n"]))
            text = header + "".join(row + (end or "\n") for row in data.draw(st.lists(CSV_ROWS, max_size=4)))
        elif suffix == ".json":
            rows = data.draw(st.lists(st.sampled_from(['{"n": 1}', '{"n":\n2}', '{"s": "]}"}']), max_size=4))
            text = data.draw(st.sampled_from(["[%s]", " [\n%s\n] ", "\ufeff[%s]"])) % ", ".join(rows)
        elif suffix == ".jsonl":
            text = "".join(row + (end or "\n") for row in data.draw(st.lists(JSON_ROWS, max_size=4)))
        else:
            text = data.draw(st.text(st.sampled_from("ab\r\n \u00e9"), max_size=8))
        (root / f"{i}{suffix}").write_bytes((text if end else text.rstrip("\n")).encode())
    check(root)


def test_one_bad_row_among_thousands_of_files_is_named_and_costs_no_more_than_a_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    parse = JsonLines.parse

    def counted(self: JsonLines, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        parsed.append(block.num_rows)
        return parse(self, block, head, schema)

    monkeypatch.setattr(JsonLines, "parse", counted)
    for i in range(2000):
        (tmp_path / f"{i:04}.jsonl").write_text('{"a": 1}\n' if i != 1234 else '{"a": 1}\n{"a": "\n')
    scanned = scan_path(tmp_path)
    (task,) = tasks(str(tmp_path), scanned)
    ((_, value),) = read_task(task)
    assert 2000 < sum(parsed) < 6 * 2000
    assert len(parsed) < 50  # each call takes 0.1 to 0.3 ms, however little it parses
    assert value.rows.num_rows == 2000
    ((row, where),) = [(error.row, error.where) for error in value.errors]
    assert (row, where) == (1235, "1234.jsonl, line 2")


def test_a_file_that_grew_or_went_is_refused_by_name(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.csv").write_text(f"x\n{i}\n")
    scanned = scan_path(tmp_path)
    (task,) = tasks(str(tmp_path), scanned)
    (tmp_path / "13.csv").write_text("x\n13\n14\n")
    with pytest.raises(SourceChanged, match=r"13\.csv has 8 bytes now and had 5"):
        list(read_task(task))
    (tmp_path / "13.csv").unlink()
    with pytest.raises(SourceChanged, match=r"13\.csv is gone"):
        list(read_task(task))
