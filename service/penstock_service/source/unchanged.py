"""Are the files still those of the dataset version?"""

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError, SourceChanged
from penstock_service.source.discover import discover
from penstock_service.source.places import place_at
from penstock_service.source.same import fingerprint_of
from penstock_service.source.stores import DEFAULTS, Stores

_NAMED = 5


def check_unchanged(dataset: DatasetVersion, stores: Stores = DEFAULTS, *, some_gone: bool = False) -> list[str]:
    """Raises SourceChanged that lists shards which are gone or hold something else.

    With `some_gone` those that are gone are returned instead, unless something else has changed or all are gone.

    New files alone are no change: the version does not have them. Where others changed they are listed too.

    A shard with another mtime and the same size is read to compare its fingerprint: a copy or a checkout is no change.
    """
    place = place_at(dataset.root, stores)
    changed: list[str] = []
    gone: list[str] = []
    shards = dataset.manifest.shards
    columns = (shards[name].to_pylist() for name in ("path", "format", "size", "mtime_ns", "fingerprint"))
    states = place.states(shards["path"].to_pylist())
    for path, kind, size, mtime_ns, fingerprint, state in zip(*columns, states, strict=True):
        if state is None:
            gone.append(path)
            changed.append(f"{path} (gone)")
        elif state.size != size:
            changed.append(f"{path} ({size} bytes when registered, {state.size} now)")
        elif state.mtime_ns != mtime_ns and fingerprint_of(place, path, kind, state) != fingerprint:
            changed.append(f"{path} (other content)")
    if changed and not (some_gone and len(gone) == len(changed) < shards.num_rows):
        raise SourceChanged(
            f"{len(changed)} of {shards.num_rows} files of {dataset.name}@{dataset.version} in {dataset.root} have "
            f"changed: {_some(changed)}{_added(dataset, stores)}. Put them back, or register {dataset.name} again "
            f"(penstock datasets register {dataset.name}={dataset.path}): that makes a new version."
        )
    return gone


def _added(dataset: DatasetVersion, stores: Stores) -> str:
    """What has come since: a file that is gone may only have another name."""
    try:
        found = discover(dataset.path, stores)
    except ServiceError:  # there is nothing any more: that is being said
        return ""
    known = set(dataset.manifest.shards["path"].to_pylist()) if found.root == dataset.root else set()
    added = [f.path for f in found.files if f.split == dataset.split and f.path not in known]
    return f"; {len(added)} new: {_some(added)}" if added else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
