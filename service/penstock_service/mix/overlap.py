"""Files that two sources of one mixture share: their rows come once for each, which is seldom meant."""

from collections.abc import Sequence
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from penstock_service.core.dataset import DatasetVersion

_NAMED = 3


def shared_files(sources: Sequence[DatasetVersion]) -> list[str]:
    """A sentence for each two of `sources` that hold the same files, told by content: links and copies are found too.

    Files without rows are nothing to share.
    """
    said = []
    for one, other in combinations(sources, 2):
        mine, theirs = _filled(one), _filled(other)
        common = mine.filter(pc.is_in(mine["fingerprint"], value_set=theirs["fingerprint"]))
        if common.num_rows:
            paths = common["path"].slice(0, _NAMED).to_pylist()
            more = f" and {common.num_rows - _NAMED} more" if common.num_rows > _NAMED else ""
            rows = pc.sum(common["rows"]).as_py()
            said.append(
                f"{common.num_rows} files ({rows} rows) of {one.label} are in {other.label} too: "
                f"{', '.join(paths)}{more}. Their rows come once for each of the two"
            )
    return said


def _filled(source: DatasetVersion) -> pa.Table:
    shards = source.manifest.shards
    return shards.filter(pc.greater(shards["rows"], 0))
