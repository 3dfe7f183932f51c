"""How often what was received is copied, as `profile()` shows it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import penstock
from tests.running import Running

Serve = Callable[..., Running]


def test_copies_are_counted_and_shown(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(512 * 1024, dtype=np.float32)), 1024)
    pa.parquet.write_table(pa.table({"x": pixels}), tmp_path / "rows" / "a.parquet")
    with penstock.connect(serve(tmp_path / "rows").target) as client:
        for output, copies in (("torch", 0.0), ("numpy", 0.0), ("mlx", 1.0)):
            with client.stream("rows", batch_size=64, output=output) as stream:  # type: ignore[arg-type]
                for _ in stream:
                    pass
                profile = stream.profile()
            assert profile["copies"] == pytest.approx(copies, abs=0.01), output
            assert f"{copies:.1f} copies of what was received" in str(profile)
        with pytest.raises(penstock.InvalidRequest, match="unified_memory is for output='mlx'"):
            client.stream("rows", batch_size=64, unified_memory=True)
        with client.stream("rows", batch_size=64, output="mlx", unified_memory=False) as stream:
            assert stream.get_batch()["x"].shape == (64, 1024)
