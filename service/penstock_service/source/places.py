"""Which place a root stands for."""

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.uri import scheme_of
from penstock_service.source.objects.address import parse_address
from penstock_service.source.objects.place import ObjectPlace
from penstock_service.source.place import LocalPlace, Place
from penstock_service.source.stores import Stores


def place_at(root: str, stores: Stores) -> Place:
    """Raises InvalidRequest where the settings do not allow it."""
    if scheme_of(root) is not None:
        return ObjectPlace(parse_address(root, stores), stores)
    check_local(root, stores)
    return LocalPlace(root)


def check_local(path: str, stores: Stores) -> None:
    """Raises InvalidRequest where this server reads object stores only."""
    if "file" not in stores.schemes:
        raise InvalidRequest(
            f"{path} is a local path, and this server reads {', '.join(stores.schemes)} only: "
            "add file to the setting schemes to allow it"
        )
