"""Names for datasets whose owner gave none."""

import re
from pathlib import Path

from penstock_service.core.errors import InvalidRequest
from penstock_service.source.discover import fixed_path
from penstock_service.source.formats import stem_of


def name_of(path: str) -> str:
    """A dataset's name from its path: the folder's, the file's without its ending, or the folder of a glob."""
    fixed = Path(fixed_path(path))
    stem = fixed.name if fixed.is_dir() else stem_of(fixed.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")
    if not name:
        raise InvalidRequest(f"no name can be made of the path {path!r}; name the dataset yourself: NAME={path}")
    return name[:128]
