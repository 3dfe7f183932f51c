"""torch tensors: views of the bundle's bytes. The only module that imports torch."""

import warnings
from functools import cache

import numpy as np
import torch

from penstock.tensors.leaf import Array
from penstock.tensors.output import Output


def torch_output() -> Output:
    """Zero copy; torch counts in unsigned numbers of 8 bits only, so wider ones get the next signed type."""
    return Output(
        "torch",
        wrap=torch.from_numpy,
        cuts_tensors=True,
        # 0.4 µs a step, a slice 1.2. "Unsafe" means that the parts do not know of each other, which is what we want:
        # a step that is changed in place must not put the steps after it into its graph.
        split=torch.Tensor.unsafe_split,
        wrap_bfloat16=lambda bits: torch.from_numpy(bits).view(torch.bfloat16),
        csr=_csr,
        widened={
            np.dtype(np.uint16): np.dtype(np.int32),
            np.dtype(np.uint32): np.dtype(np.int64),
            np.dtype(np.uint64): np.dtype(np.int64),
        },
    )


def _csr(indptr: Array, indices: Array, values: torch.Tensor, width: int) -> torch.Tensor:
    """`[rows, width]`. What torch would check was checked for the whole bundle."""
    _hear_that_it_is_beta()
    rows, columns = torch.from_numpy(indptr), torch.from_numpy(indices)
    return torch.sparse_csr_tensor(rows, columns, values, (len(indptr) - 1, width), check_invariants=False)


@cache
def _hear_that_it_is_beta() -> None:
    """torch warns once in a process that CSR is in beta (docs/types.md says so): no reason to end a strict loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)
