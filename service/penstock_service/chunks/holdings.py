"""What chunks hold of the server's memory. Those on disk hold none: their pages belong to the page cache."""

from collections.abc import Iterable, Mapping
from typing import Final

from penstock_service.chunks.job import UnitJob
from penstock_service.chunks.keys import Owner, VersionKeys
from penstock_service.chunks.rack import Rack
from penstock_service.chunks.remembered import Remembered
from penstock_service.core.holding import Holding

_KEY_BYTES: Final = 120  # about what the name of a chunk takes


def holdings(
    making: Iterable[tuple[UnitJob, int]],
    rack: Rack,
    versions: Mapping[Owner, VersionKeys],
    remembered: Remembered,
    in_processes: bool,
) -> list[Holding]:
    """`making`: what workers were given, and what is reserved for it. Of worker processes that is measured instead."""
    found = [
        Holding("read-ahead", amount, job.version.dataset.reference)
        for job, amount in making
        if not (in_processes and job.runs_python)
    ]
    for owner, size in rack.in_memory().items():
        version = versions.get(owner) if owner is not None else None
        found.append(Holding("chunk memory", size, version.dataset.reference if version is not None else ""))
    found += [Holding("chunk infos", _KEY_BYTES * len(v.known), v.dataset.reference) for v in versions.values()]
    return [*found, Holding("chunk infos", remembered.nbytes)]
