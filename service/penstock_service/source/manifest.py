"""The manifest on disk: two Arrow files in a folder, written whole or not at all, mapped when loaded."""

import os
import shutil
from pathlib import Path

import pyarrow as pa

from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, Manifest
from penstock_service.core.errors import DataError

_FILES = {"shards.arrow": SHARDS_SCHEMA, "slices.arrow": SLICES_SCHEMA}


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `folder`, which must not exist; it appears with all its content, on disk, or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, table in zip(_FILES, (manifest.shards, manifest.slices), strict=True):
        with (temporary / name).open("wb") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            file.flush()
            os.fsync(file.fileno())
    _sync(temporary)
    temporary.rename(folder)
    _sync(folder.parent)


def load_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, mapped: only we write there. Raises DataError."""
    tables = []
    for name, schema in _FILES.items():
        try:
            table = pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"manifest {folder / name} cannot be read ({error}): register the dataset again") from error
        if table.schema != schema:
            raise DataError(f"manifest {folder / name} is of another release: register the dataset again")
        tables.append(table)
    return Manifest(*tables)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
