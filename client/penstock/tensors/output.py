"""What a converted column is handed out as: NumPy itself, or what torch or MLX make of a NumPy array."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np

from penstock.errors import InvalidRequest
from penstock.tensors.leaf import Array, Leaf

OutputName = Literal["torch", "mlx", "numpy", "arrow"]
OUTPUTS: Final[tuple[str, ...]] = get_args(OutputName)


class Adoption(Protocol):
    """Received memory that the library shares."""

    def share(self, values: Array, bfloat16: bool) -> Any | None:
        """`values`, which may lie in that memory, as a tensor that shares it; None: copy it."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """One array library, as far as the conversion must know it."""

    name: str
    # Array to tensor, which may share its memory. The array is writable: nobody hands out what must not be written.
    wrap: Callable[[Array], Any]
    # True: wrap a bundle once and cut the tensor. False: cut the array and wrap each step (MLX: a lazy slice that is
    # evaluated costs 70 µs, a copy of 32 rows of 1 KiB 1 µs).
    cuts_tensors: bool
    # The same for the bits of bfloat16, which NumPy and Arrow know as uint16 only.
    wrap_bfloat16: Callable[[Array], Any]
    # A tensor [n, ...] as tensors of so many rows each and one of what is left; None: slices cost no more.
    split: Callable[[Any, int], Sequence[Any]] | None = None
    # (indptr, indices, values, width) to a sparse tensor; None where the library has none.
    csr: Callable[[Array, Array, Any, int], Any] | None = None
    # Makes received memory the library's own, so that arrays can share it; gives None for memory that it cannot have.
    adopt: Callable[[Array], Adoption | None] | None = None
    # Types the library cannot compute with, to the wider type it gets instead.
    widened: Mapping[np.dtype[Any], np.dtype[Any]] = field(default_factory=dict)
    # Types that `wrap` narrows, to what they become: said once, when the stream is opened.
    narrowed: Mapping[np.dtype[Any], str] = field(default_factory=dict)

    def wrap_of(self, leaf: Leaf) -> Callable[[Array], Any]:
        """How arrays of these numbers are handed out."""
        return self.wrap_bfloat16 if leaf.bfloat16 else self.wrap


def load_output(name: str, unified: bool | None = None) -> Output:
    """The library by name; imports it. `unified`: may MLX arrays share the received memory; None: where they can.

    Raises:
        InvalidRequest: not one of "torch", "mlx", "numpy"; or not installed.
    """
    if name == "numpy":
        return Output("numpy", wrap=_same, cuts_tensors=True, wrap_bfloat16=_numpy_bfloat16)
    try:
        # Here and not above: the client needs neither, and importing torch takes seconds.
        if name == "torch":
            from penstock.tensors.to_torch import torch_output

            return torch_output()
        if name == "mlx":
            from penstock.tensors.to_mlx import mlx_output

            return mlx_output(unified)
    except ImportError as error:
        raise InvalidRequest(
            f"output={name!r} needs {name}, which cannot be imported here ({error}): "
            f'pip install "penstock[{name}]", or take output="numpy"'
        ) from error
    raise InvalidRequest(f"output={name!r}: must be one of {', '.join(OUTPUTS)}")


def load_device() -> Any:
    """The module `to_device`; imports torch.

    Raises:
        InvalidRequest: it is not installed.
    """
    load_output("torch")
    from penstock.tensors import to_device  # here and not above: importing torch takes seconds

    return to_device


def _same(array: Array) -> Array:
    return array


def _numpy_bfloat16(bits: Array) -> Array:
    """As ml_dtypes' bfloat16 where that is installed (JAX brings it), else the bits as uint16."""
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return bits
    values: Array = bits.view(bfloat16)
    return values
