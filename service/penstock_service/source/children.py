"""What lies directly in a folder of datasets: each file, folder or spec is one."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from penstock_service.core.errors import ServiceError, SourceUnreadable
from penstock_service.source.formats import READABLE, format_of
from penstock_service.source.spec import SUFFIX, Spec, spec_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A child that may become a dataset, or the reason why it cannot."""

    path: str  # absolute: of the spec, if it is one, else of the data
    spec: Spec | None = None
    problem: str = ""

    @property
    def data(self) -> str:
        return self.spec.path if self.spec else self.path


def children(folder: Path) -> list[Candidate]:
    """By the bytes of their names; what is hidden (.* or _*) is passed over, and data that a spec there describes.

    Raises SourceUnreadable where the folder cannot be listed.
    """
    try:
        names = sorted((e.name for e in os.scandir(folder) if not e.name.startswith((".", "_"))), key=os.fsencode)
    except OSError as error:
        raise SourceUnreadable(f"the folder of datasets {folder} cannot be listed: {error.strerror}") from error
    found = [_candidate(folder / name) for name in names]
    described = {one.spec.data for one in found if one.path.endswith(SUFFIX) and one.spec and not one.problem}
    return [one for one in found if one.path.endswith(SUFFIX) or one.data not in described]


def _candidate(path: Path) -> Candidate:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Candidate(str(path), problem=f"it cannot be looked at: {error.strerror}")
    is_spec = path.name.endswith(SUFFIX)
    if not stat.S_ISDIR(mode) and not is_spec and format_of(path.name) is None:
        return Candidate(str(path), problem=f"it cannot be read as data. Readable are {READABLE}")
    try:
        return Candidate(str(path), spec_of(str(path)))
    except ServiceError as error:
        return Candidate(str(path), problem=str(error))
