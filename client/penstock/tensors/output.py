"""What a converted column is handed out as: NumPy itself, or what torch or MLX make of a NumPy array."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidRequest

Array = npt.NDArray[Any]
OutputName = Literal["torch", "mlx", "numpy", "arrow"]
OUTPUTS: Final[tuple[str, ...]] = get_args(OutputName)


@dataclass(frozen=True, slots=True)
class Output:
    """One array library, as far as the conversion must know it.

    bfloat16 will enter here: Arrow has no such type, so it has to travel as uint16 with a mark on the field, and the
    library's own reinterpreting view (`Tensor.view(torch.bfloat16)`, `array.view(mx.bfloat16)`) belongs into `wrap`.
    """

    name: str
    # Array to tensor, which may share its memory. The array is writable: nobody hands out what must not be written.
    wrap: Callable[[Array], Any]
    # True: wrap a bundle once and cut the tensor. False: cut the array and wrap each step (MLX: a lazy slice that is
    # evaluated costs 70 µs, a copy of 32 rows of 1 KiB 1 µs).
    cuts_tensors: bool
    # Types the library cannot compute with, to the wider type it gets instead.
    widened: Mapping[np.dtype[Any], np.dtype[Any]] = field(default_factory=dict)
    # Types that `wrap` narrows, to what they become: said once, when the stream is opened.
    narrowed: Mapping[np.dtype[Any], str] = field(default_factory=dict)


def load_output(name: str) -> Output:
    """The library by name; imports it.

    Raises:
        InvalidRequest: not one of "torch", "mlx", "numpy"; or not installed.
    """
    if name == "numpy":
        return Output("numpy", wrap=_same, cuts_tensors=True)
    try:
        # Here and not above: the client needs neither, and importing torch takes seconds.
        if name == "torch":
            from penstock.tensors.to_torch import torch_output

            return torch_output()
        if name == "mlx":
            from penstock.tensors.to_mlx import mlx_output

            return mlx_output()
    except ImportError as error:
        raise InvalidRequest(
            f"output={name!r} needs {name}, which cannot be imported here ({error}): "
            f'pip install "penstock[{name}]", or take output="numpy"'
        ) from error
    raise InvalidRequest(f"output={name!r}: must be one of {', '.join(OUTPUTS)}")


def _same(array: Array) -> Array:
    return array
