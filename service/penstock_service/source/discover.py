"""From what the user wrote (files, folders, globs) to the list of shards."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from penstock_proto.v1.splits import TRAIN
from penstock_service.core.errors import InvalidRequest, NoRows, SourceUnreadable
from penstock_service.core.uri import scheme_of
from penstock_service.source.formats import READABLE, format_of
from penstock_service.source.objects.listing import list_objects
from penstock_service.source.place import FileState
from penstock_service.source.places import check_local
from penstock_service.source.ranges import pick, split_ranges
from penstock_service.source.splits import answers, in_order, split_of
from penstock_service.source.stores import DEFAULTS, Stores

_MAGIC = "*?["
_NAMED = 5  # how many files an error names


class FoundFile(NamedTuple):
    """A shard, by its path relative to the root, with "/" between parts."""

    path: str
    state: FileState
    split: str = TRAIN


@dataclass(frozen=True)
class Found:
    """The shards of a dataset, sorted by the bytes of their relative paths."""

    root: str  # absolute, or a URI
    files: tuple[FoundFile, ...]
    notes: tuple[str, ...] = ()  # files reached twice, what was ignored
    warnings: tuple[str, ...] = ()  # paths without a file

    @property
    def bytes(self) -> int:
        return sum(file.state.size for file in self.files)

    @property
    def splits(self) -> list[str]:
        """Those that there are, train first."""
        return in_order({file.split for file in self.files})

    def of_split(self, split: str) -> "Found":
        return replace(self, files=tuple(file for file in self.files if file.split == split), notes=(), warnings=())


class _Candidate(NamedTuple):
    """A readable file as one path leads to it."""

    full: str
    split: str
    state: FileState | None = None  # of an object, as it was listed


@dataclass
class _Listed:
    """What one path stands for."""

    root: str
    files: list[_Candidate] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def discover(path: str | Sequence[str], stores: Stores = DEFAULTS) -> Found:
    """The readable files that `path`, or several, stand for: files, folders, globs, with `#RANGES` behind them or not.

    Raises NoRows where there are none, InvalidRequest, SourceUnreadable.
    """
    paths = list(dict.fromkeys([path] if isinstance(path, str) else path))
    listed = []
    warnings = []
    first_empty: NoRows | None = None
    for one in paths:
        try:
            listed.append(_list(one, len(paths) == 1, stores))
        except NoRows as empty:
            first_empty = first_empty or empty
            warnings.append(f"{empty} The path counts for nothing.")
    if first_empty is not None and not listed:
        raise first_empty
    root = _common_root([part.root for part in listed])
    ignored = sum((part.ignored for part in listed), Counter[str]())
    files, notes = _read_once(root, [file for part in listed for file in part.files])
    notes = [*(note for part in listed for note in part.notes), *notes]
    if ignored:
        notes.append(f"ignored: {_counts(ignored)}")
    return Found(root, files, tuple(notes), tuple(warnings))


def fixed_path(path: str) -> str:
    """`path` without ranges, and without the parts of a glob that have wildcards: what names it."""
    path = split_ranges(path)[0]
    if os.path.lexists(os.path.expanduser(path)) or not any(c in path for c in _MAGIC):  # noqa: PTH111
        return path
    return _fixed_part(path)


def _common_root(roots: list[str]) -> str:
    if len(set(roots)) == 1:
        return roots[0]
    if all(scheme_of(root) is None for root in roots):
        return os.path.commonpath(roots)
    parts = zip(*(root.split("/") for root in roots), strict=False)
    common = [part[0] for part in takewhile(lambda part: len(set(part)) == 1, parts)]
    if len(common) < 3:  # scheme, nothing, bucket
        raise InvalidRequest(f"the paths of one dataset must be in one place, a bucket or this machine: {_some(roots)}")
    return "/".join(common)


def _list(path: str, alone: bool, stores: Stores) -> _Listed:
    if not path.strip():
        raise InvalidRequest("path is empty: name a file, a folder or a glob")
    bare, ranges = split_ranges(path)
    listed = _objects(bare, alone, stores) if scheme_of(bare) is not None else _local(bare, alone, stores)
    return listed if ranges is None else _picked(bare, ranges, listed)


def _local(bare: str, alone: bool, stores: Stores) -> _Listed:
    check_local(bare, stores)
    where = os.path.abspath(os.path.expanduser(bare))  # noqa: PTH100,PTH111  not resolved: links keep their names
    if os.path.isdir(where):  # noqa: PTH112
        return _chosen(bare, where, _walk(where), alone)
    if os.path.lexists(where):
        return _single(where, alone)
    if any(c in bare for c in _MAGIC):
        root = _fixed_part(where)
        matched = glob.iglob(where, recursive=True)  # noqa: PTH207  pathlib's glob follows no links
        return _chosen(bare, root, (p for p in matched if not os.path.isdir(p)), alone)  # noqa: PTH112
    raise InvalidRequest(f"{bare}: no such file or folder ({_nearest_existing(where)})")


def _single(where: str, alone: bool) -> _Listed:
    """One file, named by the user: hidden or not, but its suffix must say what it is. Alone it is `train`."""
    root, name = os.path.split(where)
    if format_of(name) is None:
        raise InvalidRequest(f"{where}: {_suffix(name)} files cannot be read. Readable are {READABLE}.")
    return _Listed(root, [_Candidate(where, TRAIN if alone else split_of(_relative(where, os.path.dirname(root))))])  # noqa: PTH120


def _chosen(path: str, root: str, paths: Iterable[str], alone: bool) -> _Listed:
    """The readable ones of `paths`, all under `root`.

    Alone, a folder is the dataset, whatever it is called; one of several may be called by its split.
    """
    listed = _Listed(root)
    above = root if alone else os.path.dirname(root)  # noqa: PTH120
    for full in sorted(set(paths), key=os.fsencode):
        relative = _relative(full, root)
        if any(part.startswith((".", "_")) for part in relative.split("/")):
            listed.ignored["hidden (named .* or _*)"] += 1
        elif relative.endswith(".penstock.yaml"):
            continue  # says what the data is, see spec.py
        elif format_of(relative) is None:
            listed.ignored[_suffix(relative)] += 1
        else:
            listed.files.append(_Candidate(full, split_of(_relative(full, above))))
    return _data_alone(path, listed)


def _picked(path: str, ranges: str, listed: _Listed) -> _Listed:
    splits = Counter(file.split for file in listed.files)
    if len(splits) > 1:
        counts = ", ".join(f"{name} ({splits[name]})" for name in in_order(splits))
        raise InvalidRequest(
            f"{path}#{ranges}: ranges are for the shards of one split, and here are {counts}. "
            f"Name the folder or a glob of one split: {path.rstrip('/')}/{in_order(splits)[0]}*#{ranges}"
        )
    picked = pick(path, ranges, [_relative(file.full, listed.root) for file in listed.files])
    return replace(listed, files=[listed.files[i] for i in picked.indices], notes=picked.notes)


def _read_once(root: str, files: list[_Candidate]) -> tuple[tuple[FoundFile, ...], list[str]]:
    """The files in stored order, and what to say of those that were reached twice."""
    once: list[FoundFile] = []
    seen: dict[object, str] = {}
    twice: list[str] = []
    for file in sorted(files, key=lambda f: os.fsencode(_relative(f.full, root))):
        state, identity = (file.state, file.full) if file.state is not None else _look(file.full)
        relative = _text(_relative(file.full, root))
        if identity in seen:
            twice.append(relative if relative == seen[identity] else f"{relative} (= {seen[identity]})")
            continue
        seen[identity] = relative
        once.append(FoundFile(relative, state, file.split))
    return tuple(once), [f"{len(twice)} files are reached twice and read once: {_some(twice)}"] if twice else []


def _relative(full: str, root: str) -> str:
    prefix = root.rstrip("/") + "/"
    return full[len(prefix) :].lstrip("/") if full.startswith(prefix) else os.path.relpath(full, root)


def _objects(uri: str, alone: bool, stores: Stores) -> _Listed:
    """As for local paths: what is hidden or of another kind is ignored, unless it was named alone."""
    listing = list_objects(uri, stores)
    listed = _Listed(listing.root)
    above = listing.root if alone else listing.root.rpartition("/")[0]
    for path, state in listing.states.items():
        full = f"{listing.root.rstrip('/')}/{path}"
        if not listing.single and any(part.startswith((".", "_")) for part in path.split("/")):
            listed.ignored["hidden (named .* or _*)"] += 1
        elif format_of(path) is None:
            listed.ignored[_suffix(path)] += 1
        else:
            split = TRAIN if listing.single and alone else split_of(_relative(full, above))
            listed.files.append(_Candidate(full, split, state))
    return _data_alone(uri, listed)


def _data_alone(path: str, listed: _Listed) -> _Listed:
    """What was listed, without files that are no data. Raises NoRows if nothing is left."""
    if form := answers(_relative(file.full, listed.root) for file in listed.files):
        listed.ignored["submission files (beside train and test)"] += len(form)
        listed.files = [file for file in listed.files if _relative(file.full, listed.root) not in form]
    if not listed.files:
        raise NoRows(_nothing(path, listed.ignored))
    return listed


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
