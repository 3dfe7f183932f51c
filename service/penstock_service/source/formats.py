"""The formats there are, and which one a file name stands for."""

from collections.abc import Mapping

from penstock_service.source.arrow_ipc import ArrowIpc
from penstock_service.source.format import Format
from penstock_service.source.parquet import Parquet
from penstock_service.source.text.delimited import Delimited
from penstock_service.source.text.format import TextFormat
from penstock_service.source.text.jsonl import JsonDocument, JsonLines
from penstock_service.source.text.plain import PlainText

FORMATS: tuple[Format, ...] = (
    Parquet(),
    ArrowIpc(),
    TextFormat("jsonl", (".jsonl", ".ndjson"), JsonLines()),
    TextFormat("json", (".json",), JsonDocument()),
    TextFormat("csv", (".csv",), Delimited(",")),
    TextFormat("tsv", (".tsv", ".tab"), Delimited("\t")),
    TextFormat("text", (".txt", ".md"), PlainText()),
)

SEMANTICS: Mapping[str, int] = {f.name: f.semantics for f in FORMATS}
"""By format, the version of what its scan and its rows mean: part of every chunk's name."""

_BY_NAME = {f.name: f for f in FORMATS}
_BY_SUFFIX = {suffix: f for f in FORMATS for suffix in f.suffixes}

READABLE = ".parquet .arrow .feather .jsonl .json .csv .tsv .txt .md (text formats also with .gz or .zst)"
"""For errors: what can be read."""


def format_of(path: str) -> Format | None:
    """The format that the name of a file stands for, if any does."""
    name = path.rpartition("/")[2].lower()
    stem, dot, last = name.rpartition(".")
    found = _BY_SUFFIX.get(dot + last)
    if found is None:  # two endings: .jsonl.gz
        _, first_dot, first = stem.rpartition(".")
        found = _BY_SUFFIX.get(f"{first_dot}{first}{dot}{last}")
    return found


def stem_of(name: str) -> str:
    """The name of a data file without the ending that says what it is: "a.b.csv.gz" is "a.b"."""
    found = format_of(name)
    endings = [suffix for suffix in found.suffixes if name.lower().endswith(suffix)] if found else []
    return name[: -max(map(len, endings))] if endings else name


def format_named(name: str) -> Format:
    return _BY_NAME[name]
