"""Are the files still those of the dataset version?"""

from functools import lru_cache

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import SourceChanged
from penstock_service.source.format import ShardFile
from penstock_service.source.formats import format_named
from penstock_service.source.place import FileState, Place
from penstock_service.source.places import place_at
from penstock_service.source.stores import DEFAULTS, Stores

_NAMED = 5


def check_unchanged(dataset: DatasetVersion, stores: Stores = DEFAULTS) -> None:
    """Raises SourceChanged that lists shards which are gone or hold something else. New files are no change.

    A shard with another mtime and the same size is read to compare its fingerprint: a copy or a checkout is no change.
    """
    place = place_at(dataset.root, stores)
    changed: list[str] = []
    shards = dataset.manifest.shards
    columns = (shards[name].to_pylist() for name in ("path", "format", "size", "mtime_ns", "fingerprint"))
    states = place.states(shards["path"].to_pylist())
    for path, kind, size, mtime_ns, fingerprint, state in zip(*columns, states, strict=True):
        if state is None:
            changed.append(f"{path} (gone)")
        elif state.size != size:
            changed.append(f"{path} ({size} bytes when registered, {state.size} now)")
        elif state.mtime_ns != mtime_ns and _fingerprint(place, path, kind, state) != fingerprint:
            changed.append(f"{path} (other content)")
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise SourceChanged(
            f"{len(changed)} of {shards.num_rows} files of {dataset.name}@{dataset.version} in {dataset.root} have "
            f"changed: {', '.join(changed[:_NAMED])}{more}. Put them back, or register {dataset.name} again: "
            "that makes a new version."
        )


@lru_cache(maxsize=4096)
def _fingerprint(place: Place, path: str, kind: str, state: FileState) -> str:
    """The fingerprint of a file in this state; a big file is read once, not at each opening of its dataset."""
    return format_named(kind).fingerprint(ShardFile(place, path, state))
