"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names of `known` that are most like `name`, in any case and with any of "-", "_" and " " between words."""
    plain = {one.casefold().replace("_", "-"): one for one in known}
    wanted = name.casefold().replace("_", "-").replace(" ", "-")
    return [plain[found] for found in difflib.get_close_matches(wanted, list(plain), n=most, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with the nearest, or nothing where none is near."""
    near = nearest(name, known, most=1)
    return f"; did you mean {near[0]}?" if near else ""
