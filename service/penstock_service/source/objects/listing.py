"""What there is under an address: one object, all below a prefix, or what a glob matches. pyarrow asks page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pyarrow import fs

from penstock_service.core.errors import InvalidRequest
from penstock_service.source.objects.address import Address, parse_address
from penstock_service.source.objects.failures import failure, retrying
from penstock_service.source.objects.filesystems import filesystem
from penstock_service.source.place import FileState
from penstock_service.source.stores import Stores

_MAGIC = "*?["
_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """Objects by their path relative to the root."""

    root: str  # a URI
    states: dict[str, FileState]
    single: bool = False  # the URI names this one object


def list_objects(uri: str, stores: Stores) -> Listing:
    """What `uri` stands for: an object, else a prefix, else a glob. Raises InvalidRequest, SourceUnreadable."""
    folder = uri.endswith("/")
    address = parse_address(uri, stores)
    if not folder and address.key and (state := _one(address, stores)) is not None:
        above, _, name = address.key.rpartition("/")
        return Listing(address.at(above).uri, {name: state}, single=True)
    states = files_under(address, stores)
    if states or folder or not any(c in address.key for c in _MAGIC):
        if not states:
            raise InvalidRequest(_nothing(address, stores))
        return Listing(address.uri, states)
    fixed, pattern = _fixed_part(address.key)
    root = address.at(fixed)
    states = files_under(root, stores)
    matching = {path: state for path, state in states.items() if matches(path.split("/"), pattern)}
    if not matching:
        raise InvalidRequest(f"{address.uri}: none of the {len(states)} objects under {root.uri} match this glob")
    return Listing(root.uri, matching)


def files_under(address: Address, stores: Stores) -> dict[str, FileState]:
    """All objects below a prefix, by relative path; those that only stand for a folder are none."""
    system = filesystem(address, stores, stores.retry.max_retries + 1)
    where = fs.FileSelector(address.inner, recursive=True)
    try:
        found = system.get_file_info(where)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise failure(address.uri, error, stores.retry.max_retries + 1) from error
    before = len(address.inner) + 1
    return {i.path[before:]: FileState(i.size, i.mtime_ns or 0) for i in found if i.type == fs.FileType.File}


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """As `glob` has it: "*" stays within a part, "**" alone stands for any number of parts."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(matches(path[n:], pattern[1:]) for n in range(len(path) + 1)) or pattern == ["**"]
    return bool(path) and fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def _one(address: Address, stores: Stores) -> FileState | None:
    system = filesystem(address, stores)
    info = retrying(address.uri, lambda: system.get_file_info(address.inner), stores.retry)
    return FileState(info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None


def _fixed_part(key: str) -> tuple[str, list[str]]:
    """The prefix above the first part with a wildcard, and the parts from there on."""
    parts = key.split("/")
    fixed = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
    return "/".join(parts[:fixed]), parts[fixed:]


def _nothing(address: Address, stores: Stores) -> str:
    """Why there is nothing at `address`: no bucket, or what is there instead."""
    system = filesystem(address, stores)
    bucket = address.at("")
    found = retrying(bucket.uri, lambda: system.get_file_info(bucket.inner), stores.retry)
    if found.type == fs.FileType.NotFound:
        return f"{address.uri}: there is no bucket {address.bucket!r}. Check its name, the endpoint and the region."
    above = address.at(address.key.rpartition("/")[0])
    where = fs.FileSelector(above.inner, allow_not_found=True)
    near = retrying(above.uri, lambda: system.get_file_info(where), stores.retry)
    names = sorted(i.base_name for i in near)
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return (
        f"{address.uri}: no such object or prefix ({above.uri} holds {len(names)} names{': ' if names else ''}{shown})"
    )
