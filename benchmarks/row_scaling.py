"""A row transform of a user for the benchmarks: NumPy, in worker processes."""

import numpy as np
import pyarrow as pa


def scale(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The vectors of column x, each divided by its length."""
    at = batch.schema.get_field_index("x")
    vectors = batch.column(at).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    values = pa.array((vectors / np.maximum(lengths, 1e-12)).astype(np.float32).ravel())
    return batch.set_column(at, batch.schema.field(at), pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]))
