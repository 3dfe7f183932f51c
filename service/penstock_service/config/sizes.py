"""Sizes as people write them: "512MiB", "5GB", 16777216."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

_UNITS = {"": 1, "b": 1} | {
    unit: base**power
    for base, names in ((1000, ("kb", "mb", "gb", "tb")), (1024, ("kib", "mib", "gib", "tib")))
    for power, unit in enumerate(names, start=1)
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
ALLOWED = "a size is a number of bytes, or a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 512MiB"


def parse_size(value: object) -> int:
    """Bytes. "5G" is refused on purpose: half of the world means 5 GB by it, the other half 5 GiB."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        number, unit = found.groups()
        if (factor := _UNITS.get(unit.lower())) is not None:
            return int(float(number) * factor) if "." in number else int(number) * factor
    raise ValueError(ALLOWED)


def show_size(size: int) -> str:
    """The shortest way to write `size` that `parse_size` reads back without loss; plain bytes where there is none."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"):
        factor = _UNITS[unit.lower()]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_auto_size(value: object) -> int | str:
    try:
        return "auto" if isinstance(value, str) and value.strip().lower() == "auto" else parse_size(value)
    except ValueError:
        raise ValueError(f"auto, or a size; {ALLOWED}") from None


Size = Annotated[int, BeforeValidator(parse_size)]
AutoSize = Annotated[int | Literal["auto"], BeforeValidator(parse_auto_size)]
