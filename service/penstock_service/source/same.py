"""Is a shard still what it was when its dataset was registered? Asked before it is read, and again after."""

from functools import lru_cache

from penstock_service.core.dataset import Slice
from penstock_service.core.errors import SourceChanged
from penstock_service.source.digest import has_tag, same_tag, size_in
from penstock_service.source.format import ShardFile
from penstock_service.source.formats import format_named
from penstock_service.source.place import FileState, LocalPlace, Place


def is_same(place: Place, piece: Slice, state: FileState) -> bool:
    """Does a shard in this state hold what it held when `piece` was cut? It is read if only its mtime tells.

    Of objects the mtime tells nothing here: a listing and a head may give it in other units.
    """
    if state.size != size_in(piece.fingerprint):
        return False
    if not isinstance(place, LocalPlace):
        return not has_tag(piece.fingerprint) or same_tag(ShardFile(place, piece.path, state), piece.fingerprint)
    if piece.mtime_ns is None or piece.mtime_ns == state.mtime_ns:
        return True
    return fingerprint_of(place, piece.path, piece.format, state) == piece.fingerprint


def check_same(file: ShardFile, piece: Slice) -> None:
    """Raises SourceChanged that says what is not as it was. A file that was touched, or copied, is the same."""
    if is_same(file.place, piece, file.state):
        return
    now, known = file.state.size, size_in(piece.fingerprint)
    if now != known:
        what = f"has {now} bytes now and had {known} when its dataset was registered"
    else:
        how = "another ETag" if has_tag(piece.fingerprint) else "the size is the same"
        what = f"holds something else than when its dataset was registered ({how})"
    raise SourceChanged(f"{file.full} {what}: register it again to use it as it is now.")


@lru_cache(maxsize=4096)
def fingerprint_of(place: Place, path: str, kind: str, state: FileState) -> str:
    """The fingerprint of a file in this state; a big file is read once, not whenever its dataset is opened or read."""
    return format_named(kind).fingerprint(ShardFile(place, path, state))
