"""torch tensors: views of the bundle's bytes. The only module that imports torch."""

import numpy as np
import torch

from penstock.tensors.output import Output


def torch_output() -> Output:
    """Zero copy; torch counts in unsigned numbers of 8 bits only, so wider ones get the next signed type."""
    return Output(
        "torch",
        wrap=torch.from_numpy,
        cuts_tensors=True,
        widened={
            np.dtype(np.uint16): np.dtype(np.int32),
            np.dtype(np.uint32): np.dtype(np.int64),
            np.dtype(np.uint64): np.dtype(np.int64),
        },
    )
