"""From what the user wrote (a file, a folder, a glob) to the list of shards."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from penstock_service.core.errors import InvalidRequest, SourceUnreadable
from penstock_service.core.uri import scheme_of
from penstock_service.source.formats import READABLE, format_of
from penstock_service.source.objects.listing import list_objects
from penstock_service.source.place import FileState
from penstock_service.source.places import check_local
from penstock_service.source.stores import DEFAULTS, Stores

_MAGIC = "*?["
_NAMED = 5  # how many files an error names


class FoundFile(NamedTuple):
    """A shard, by its path relative to the root, with "/" between parts."""

    path: str
    state: FileState


@dataclass(frozen=True)
class Found:
    """The shards of a dataset, sorted by the bytes of their relative paths."""

    root: str  # absolute, or a URI
    files: tuple[FoundFile, ...]
    notes: tuple[str, ...] = ()  # files reached twice, what was ignored

    @property
    def bytes(self) -> int:
        return sum(file.state.size for file in self.files)


def discover(path: str, stores: Stores = DEFAULTS) -> Found:
    """The readable files that `path` stands for. Raises InvalidRequest where there are none, SourceUnreadable."""
    if not path.strip():
        raise InvalidRequest("path is empty: name a file, a folder or a glob")
    if scheme_of(path) is not None:
        return _objects(path, stores)
    check_local(path, stores)
    where = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100,PTH111  not resolved: links keep their names
    if os.path.isdir(where):  # noqa: PTH112
        return _chosen(path, where, _walk(where))
    if os.path.lexists(where):
        return _single(where)
    if any(c in path for c in _MAGIC):
        root = _fixed_part(where)
        matched = glob.iglob(where, recursive=True)  # noqa: PTH207  pathlib's glob follows no links
        return _chosen(path, root, (p for p in matched if not os.path.isdir(p)))  # noqa: PTH112
    raise InvalidRequest(f"{path}: no such file or folder ({_nearest_existing(where)})")


def _single(where: str) -> Found:
    """One file, named by the user: hidden or not, but its suffix must say what it is."""
    root, name = os.path.split(where)
    if format_of(name) is None:
        raise InvalidRequest(f"{where}: {_suffix(name)} files cannot be read. Readable are {READABLE}.")
    state, _ = _look(where)
    return Found(root, (FoundFile(_text(name), state),))


def _chosen(path: str, root: str, paths: Iterable[str]) -> Found:
    readable: list[tuple[bytes, str]] = []
    ignored: Counter[str] = Counter()
    for full in paths:
        relative = os.path.relpath(full, root) if not full.startswith(root) else full[len(root) :].lstrip("/")
        if any(part.startswith((".", "_")) for part in relative.split("/")):
            ignored["hidden (named .* or _*)"] += 1
        elif relative.endswith(".penstock.yaml"):
            continue  # says what the data is, see spec.py
        elif format_of(relative) is None:
            ignored[_suffix(relative)] += 1
        else:
            readable.append((os.fsencode(relative), full))
    if not readable:
        raise InvalidRequest(_nothing(path, ignored))
    files: list[FoundFile] = []
    seen: dict[tuple[int, int], str] = {}
    twice: list[str] = []
    for name, full in sorted(set(readable)):
        state, identity = _look(full)
        relative = _text(os.fsdecode(name))
        if identity in seen:
            twice.append(f"{relative} (= {seen[identity]})")
            continue
        seen[identity] = relative
        files.append(FoundFile(relative, state))
    notes = []
    if twice:
        notes.append(f"{len(twice)} files are reached twice and read once: {_some(twice)}")
    if ignored:
        notes.append(f"ignored: {_counts(ignored)}")
    return Found(root, tuple(files), tuple(notes))


def _objects(uri: str, stores: Stores) -> Found:
    """As for local paths: what is hidden or of another kind is ignored, unless it was named alone."""
    listing = list_objects(uri, stores)
    readable: list[FoundFile] = []
    ignored: Counter[str] = Counter()
    for path, state in listing.states.items():
        if not listing.single and any(part.startswith((".", "_")) for part in path.split("/")):
            ignored["hidden (named .* or _*)"] += 1
        elif format_of(path) is None:
            ignored[_suffix(path)] += 1
        else:
            readable.append(FoundFile(path, state))
    if not readable:
        raise InvalidRequest(_nothing(uri, ignored))
    notes = (f"ignored: {_counts(ignored)}",) if ignored else ()
    return Found(listing.root, tuple(sorted(readable, key=lambda file: file.path.encode())), notes)


def _walk(root: str) -> Iterator[str]:
    """All files under `root`, through links to folders too, each folder once."""
    seen: set[tuple[int, int]] = set()
    todo = [root]
    while todo:
        folder = todo.pop()
        try:
            info = os.stat(folder)  # noqa: PTH116
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            raise SourceUnreadable(f"{folder} cannot be listed: {error.strerror}. Check its permissions.") from error
        for entry in listed:
            if not entry.is_dir():
                yield entry.path
            elif not entry.name.startswith((".", "_")):
                todo.append(entry.path)


def _look(full: str) -> tuple[FileState, tuple[int, int]]:
    """Size, mtime and identity of a file that will be read. Raises SourceUnreadable."""
    try:
        info = os.stat(full)  # noqa: PTH116
    except FileNotFoundError as error:
        raise SourceUnreadable(f"{full} is a link to nothing, or was removed just now") from error
    except OSError as error:
        raise SourceUnreadable(f"{full} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        raise InvalidRequest(f"{full} is no regular file")
    if not os.access(full, os.R_OK):
        raise SourceUnreadable(f"{full} may not be read by this user: check its permissions")
    return FileState(info.st_size, info.st_mtime_ns), (info.st_dev, info.st_ino)


def _text(relative: str) -> str:
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{relative!r}: names of files must be UTF-8. Rename it.") from error
    return relative


def _fixed_part(pattern: str) -> str:
    """The folder above the first part with a wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
    return str(Path(*parts[:fixed]))


def _nearest_existing(where: str) -> str:
    parent = Path(where).parent
    while not parent.exists():
        parent = parent.parent
    listed = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))
    return f"{parent} exists and holds {len(listed)} names: {_some(listed)}" if listed else f"{parent} exists, empty"


def _nothing(path: str, ignored: Counter[str]) -> str:
    if not ignored:
        return f"{path}: no files there. Readable are {READABLE}."
    return f"{path}: no readable file among {ignored.total()}: {_counts(ignored)}. Readable are {READABLE}."


def _counts(ignored: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in ignored.most_common(_NAMED))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without a suffix"  # noqa: PTH122
