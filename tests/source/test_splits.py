import string
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1.splits import WORDS, find_split
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import difference
from penstock_service.core.errors import DataError, InvalidRequest, NoRows, NotFound, SourceChanged
from penstock_service.source.children import children
from penstock_service.source.discover import discover
from penstock_service.source.registry import Registry
from penstock_service.source.spec import read_spec, spec_of
from penstock_service.source.splits import in_order, split_of
from penstock_service.source.unchanged import check_unchanged
from tests.source.files import SUFFIXES, WRITERS, check_manifest, scan_path

CASES = st.sampled_from([str.lower, str.upper, str.title])
NO_LETTER = st.sampled_from(["", "_", "-", ".", "0", "-00000-of-00010", "_part1", " x"])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n1\n")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        *(("train.csv", "train"), ("test.csv.gz", "test"), ("TEST.CSV", "test"), ("Dev_2.jsonl", "dev")),
        *(("val/a.csv", "val"), ("Valid/x/a.csv", "valid"), ("x/validation/a.csv", "validation")),
        *(("validation.json", "validation"), ("valid-1.json", "valid"), ("test2.csv", "test"), ("a.csv", "train")),
        *(("trainer.csv", "train"), ("testing.csv", "train"), ("crash-test.csv", "train"), ("device.csv", "train")),
        *(("test-drive/a.csv", "train"), ("test/train.csv", "test"), ("train/test/a.csv", "train")),
        *(("tests/a.csv", "train"), ("valid/test.csv", "valid"), ("x.test.csv", "train"), ("testé.csv", "test")),
    ],
)
def test_the_split_is_told_by_the_outermost_folder_that_counts_then_by_the_file(path: str, split: str) -> None:
    assert split_of(path) == split


@given(st.sampled_from(WORDS), CASES, NO_LETTER, st.sampled_from(SUFFIXES), st.data())
def test_a_word_in_any_case_counts_and_nothing_else_does(
    word: str, case: "type[str]", behind: str, suffix: str, data: st.DataObject
) -> None:
    assert split_of(f"{case(word)}{behind}{suffix}") == word
    assert split_of(f"a/{case(word)}/b{suffix}") == word
    letter = data.draw(st.sampled_from(string.ascii_letters))
    longer = f"{word}{letter}"
    if not any(longer.lower().startswith(other) for other in WORDS if len(other) > len(word)):
        assert split_of(f"{longer}{suffix}") == "train"
    assert split_of(f"x{word}/x{word}{suffix}") == "train"


@given(st.sets(st.sampled_from(WORDS), min_size=1), st.sampled_from([*WORDS, "", "other"]))
def test_a_split_is_found_by_its_own_name_or_by_a_synonym_that_only_it_can_mean(names: set[str], wanted: str) -> None:
    found = find_split(wanted, names)
    meant = wanted or "train"
    synonyms = names & {"valid", "val", "validation", "dev"}
    if meant in names:
        assert found == meant
    elif meant in ("valid", "val", "validation", "dev") and len(synonyms) == 1:
        assert found == next(iter(synonyms))
    else:
        assert found is None
    assert find_split(wanted.upper(), names) == found


def test_train_comes_first_and_the_others_by_name() -> None:
    assert in_order(["val", "test", "train", "dev"]) == ["train", "dev", "test", "val"]


def test_names_above_the_path_and_that_of_a_lone_path_say_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "test/dev/a.csv", "test/dev/b.csv", "test/x.csv")
    assert discover(str(tmp_path / "test")).splits == ["train", "dev"]
    assert discover(str(tmp_path / "test" / "dev")).splits == ["train"]
    assert discover(str(tmp_path / "test" / "dev" / "*.csv")).splits == ["train"]
    touch(tmp_path, "test.csv")
    assert discover(str(tmp_path / "test.csv")).splits == ["train"]
    assert discover(str(tmp_path / "te*.csv")).splits == ["test"]


def test_of_several_paths_the_last_name_counts_too(tmp_path: Path) -> None:
    touch(tmp_path, "dev/data/train/a.csv", "dev/data/test/a.csv", "dev/more.csv")
    both = discover([str(tmp_path / "dev" / "data" / name) for name in ("train", "test")])
    assert [(f.path, f.split) for f in both.files] == [("test/a.csv", "test"), ("train/a.csv", "train")]
    globs = discover([str(tmp_path / "dev" / "data" / name / "*.csv") for name in ("train", "test")])
    assert globs.splits == ["train", "test"]
    files = discover([str(tmp_path / "dev/data/train/a.csv"), str(tmp_path / "dev/data/test/a.csv")])
    assert files.splits == ["train", "test"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_schema_agrees_within_a_split_and_not_across(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3], "y": [0, 1, 0]})
    (tmp_path / "test").mkdir()
    WRITERS[suffix](table, tmp_path / f"train{suffix}")
    WRITERS[suffix](table, tmp_path / f"more{suffix}")
    WRITERS[suffix](table.select(["x"]), tmp_path / "test" / f"a{suffix}")
    scanned = scan_path(tmp_path)
    assert [(s.name, s.manifest.rows, s.schema.names) for s in scanned.splits] == [
        ("train", 6, ["x", "y"]),
        ("test", 3, ["x"]),
    ]
    for split in scanned.splits:
        check_manifest(split.manifest)
    WRITERS[suffix](pa.table({"x": ["one"]}), tmp_path / "test" / f"b{suffix}")
    with pytest.raises(DataError, match=rf"column 'x'.*test/b{suffix}.*All 2 files of a split \(here test\)"):
        scan_path(tmp_path)


def test_an_empty_split_is_noted_and_refused_only_when_asked_for(tmp_path: Path) -> None:
    data = tmp_path / "d"
    touch(data, "train.csv")
    (data / "test.csv").write_text("x\n")
    registry = Registry(tmp_path / "state")
    made = registry.register("d", str(data))
    assert [(s.name, s.rows) for s in made.splits] == [("train", 1), ("test", 0)]
    assert registry.notes("d") == (f"{data}: the 1 readable files of split test hold no rows",)
    with pytest.raises(NoRows, match=r"split 'test' of dataset d@\w+ holds no rows"):
        registry.get("d", "test")
    (data / "train.csv").write_text("x\n")
    with pytest.raises(NoRows, match="2 readable files hold no rows"):
        registry.register("d", str(data))
    registry.close()


def test_a_path_without_files_among_others_is_noted_and_counts_for_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "full/a.csv")
    (tmp_path / "bare").mkdir()
    found = discover([str(tmp_path / "bare"), str(tmp_path / "full")])
    assert [f.path for f in found.files] == ["a.csv"]
    (warning,) = found.warnings
    assert warning.startswith(f"{tmp_path}/bare: no files there.")
    with pytest.raises(NoRows, match="bare: no files there"):
        discover([str(tmp_path / "bare"), str(tmp_path / "bare")])


def test_a_registry_gives_each_split_its_own_version_of_the_one_dataset(tmp_path: Path) -> None:
    data = tmp_path / "d"
    touch(data, "train.csv", "val/a.csv")
    registry = Registry(tmp_path / "state")
    registry.register("d", str(data))
    train, val = registry.get("d"), registry.get("d", "dev")
    assert (train.split, val.split, train.version == val.version) == ("train", "val", True)
    assert (train.label, val.label) == ("d", "d:val")
    assert val.reference == f"d@{val.version}:val"
    assert train.manifest.shards["path"].to_pylist() == ["train.csv"]
    assert val.manifest.shards["path"].to_pylist() == ["val/a.csv"]
    with pytest.raises(NotFound, match=r"no split 'test'; it has train \(1 rows\), val \(1 rows\)"):
        registry.get("d", "test")
    alone = Registry(tmp_path / "alone")
    (data / "val" / "a.csv").rename(tmp_path / "gone.csv")
    assert alone.register("d", str(data)).version == train.content  # a dataset that is all train is as it always was
    check_unchanged(train)  # what another split lost is no change of this one
    for opened in (registry, alone):
        opened.close()


def test_required_columns_are_asked_of_each_file(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    (data / "a.jsonl").write_text('{"x": 1, "y": 2}\n')
    (data / "b.jsonl").write_text('{"x": 1}\n')
    (data / "c.jsonl").write_text("")
    (data / "test.jsonl").write_text('{"x": 1}\n')
    registry = Registry(tmp_path / "state")
    registry.register("d", str(data), Declaration(required={"train": ("x",), "test": ("x",)}))
    for _ in range(2):  # scanned before or not
        with pytest.raises(InvalidRequest) as caught:
            registry.register("e", str(data), Declaration(required={"": ("x", "y")}))
        assert str(caught.value).startswith(
            "1 files of split train lack required columns: b.jsonl has no column 'y' (it has x)."
        )
    assert [d.name for d in registry.list()] == ["d"]
    (data / "d.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(InvalidRequest, match="2 files of split train lack"):
        registry.register("d", str(data), Declaration(required={"train": ("y",)}))
    assert len(list((tmp_path / "state" / "manifests").iterdir())) == 1  # nothing is left of what was refused
    registry.close()


def test_what_leads_from_one_version_to_the_next_is_told_of_all_splits(tmp_path: Path) -> None:
    data = tmp_path / "d"
    touch(data, "train.csv", "test.csv")
    registry = Registry(tmp_path / "state")
    first = registry.register("d", str(data)).version
    touch(data, "test2.csv")
    registry.register("d", str(data))
    found = difference(registry.whole(f"d@{first}"), registry.whole("d"))
    assert ([s.path for s in found.added], found.gone, found.changed, found.same) == (["test2.csv"], (), (), 2)
    (data / "train.csv").write_text("x\n22\n")
    with pytest.raises(SourceChanged) as caught:
        check_unchanged(registry.get("d"))
    assert "new" not in str(caught.value).partition("Put them back")[0]  # files of other splits are none of its own
    registry.close()


def test_a_spec_may_require_columns_of_train_or_of_each_split(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.csv")
    spec = tmp_path / "d.penstock.yaml"
    spec.write_text("required: [x, y]\n")
    assert read_spec(str(spec)).said.required == {"train": ("x", "y")}
    spec.write_text("required: {train: x, test: [y]}\n")
    assert read_spec(str(spec)).said.required == {"train": ("x",), "test": ("y",)}


def test_specs_may_take_disjoint_shards_of_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"data/{n}.csv" for n in range(10)))
    for name, shards in (("mine", "0-6,9-"), ("held", "7-8")):
        (tmp_path / f"{name}.penstock.yaml").write_text(f'path: data\nshards: "{shards}"\n')
    found = {one.spec.name: discover(one.data).files for one in children(tmp_path) if one.spec}
    assert {name: len(files) for name, files in found.items()} == {"mine": 8, "held": 2}
    assert len(children(tmp_path)) == 2  # the folder itself is described by them
    (tmp_path / "held.penstock.yaml").unlink()
    spec = spec_of(str(tmp_path / "data"))
    assert spec is None  # its name is another: only a spec of that name describes a folder from beside it
    (tmp_path / "mine.penstock.yaml").rename(tmp_path / "data.penstock.yaml")
    spec = spec_of(str(tmp_path / "data"))
    assert spec is not None
    assert (spec.data, spec.path) == (str(tmp_path / "data"), f"{tmp_path}/data#0-6,9-")
