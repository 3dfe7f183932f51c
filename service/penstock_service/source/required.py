"""Columns that a split must have."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock_proto.v1.splits import find_split
from penstock_service.core.errors import InvalidRequest
from penstock_service.source.manifest import load_shard_schemas, load_summary

_NAMED = 5

Required = Mapping[str, Sequence[str]]
"""Columns by split."""


def check_required(folder: Path, required: Required) -> None:
    """Every shard of a split has the columns required of that split. Raises InvalidRequest, DataError.

    A JSON file may lack a column that others have: here each file is asked.
    """
    splits = [split.name for split in load_summary(folder)]
    for wanted, columns in required.items():
        split = find_split(wanted, splits)
        if split is None:
            raise InvalidRequest(
                f"required: columns are listed for split {wanted!r}, and the splits found are {', '.join(splits)}"
            )
        lacking: list[str] = []
        for path, schema in load_shard_schemas(folder, split):
            missing = [column for column in columns if column not in schema.names]
            if missing:
                lacking.append(
                    f"{path} has no column {', '.join(map(repr, missing))} (it has {', '.join(schema.names)})"
                )
        if lacking:
            more = f"; and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            raise InvalidRequest(
                f"{len(lacking)} files of split {split} lack required columns: {'; '.join(lacking[:_NAMED])}{more}. "
                f"Correct the files, or the list of required columns ({', '.join(columns)})"
            )
