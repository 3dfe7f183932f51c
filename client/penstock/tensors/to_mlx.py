"""MLX arrays: one copy per step, or none where Metal can read the received bytes. The only module that imports mlx."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import mlx.core as mx
import numpy as np

from penstock.errors import InvalidRequest
from penstock.tensors.copies import PAGE, WORTH_SHARING, on_pages, page_aligned, pages_of
from penstock.tensors.leaf import Array
from penstock.tensors.output import Output

_MOST: Final = (1 << 31) - PAGE  # bytes
_SHARED: Final = {
    np.dtype(name): getattr(mx, name)
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32")
}


def mlx_output(unified: bool | None = None) -> Output:
    """MLX adopts memory only with Metal, and there only where it begins at a page: else `from_dlpack` copies.

    It is taken on every platform all the same: it costs half of what `mx.array` does (0.4 against 0.7 µs for 32
    numbers, 0.29 against 0.45 ms for 4 MiB, mlx 0.32.4 on Linux). Older versions have only `mx.array`.

    Args:
        unified: whether arrays may share memory with what was received; None: where that is possible.

    Raises:
        InvalidRequest: it must, and this MLX cannot.
    """
    wrap = getattr(mx, "from_dlpack", mx.array)
    output = Output(
        "mlx",
        wrap=wrap,
        cuts_tensors=False,
        wrap_bfloat16=lambda bits: wrap(bits).view(mx.bfloat16),
        narrowed={np.dtype(np.float64): "float32"},
    )
    if unified is False:
        return output
    why = why_not_unified()
    if why and unified:
        raise InvalidRequest(f"unified_memory=True: {why}. Leave it out: each batch is then copied once")
    return output if why else replace(output, adopt=lambda memory: adopted(memory, _adopt))


def why_not_unified() -> str:
    """Empty where MLX can adopt page-aligned memory of this process: tried, not guessed."""
    if not mx.metal.is_available():
        return "MLX has no Metal here (it needs an Apple GPU)"
    try:
        memory = page_aligned(1)
        array = _adopt(pages_of(memory))
        mx.eval(array)
        memory[0] = 7
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:  # AttributeError: no from_dlpack yet
        return f"this MLX ({version('mlx')}) cannot adopt memory: {error}"
    return "" if array[0].item() == 7 else f"this MLX ({version('mlx')}) copies what it should adopt"


def _adopt(whole: Array) -> mx.array:
    return mx.from_dlpack(whole, copy=False)


def adopted(memory: Array, adopt: Callable[[Array], mx.array]) -> "Adopted | None":
    """None where the memory was not made to be adopted, or is too large for the 32 bits that MLX counts with."""
    if not on_pages(memory) or memory.nbytes > _MOST:
        return None
    return Adopted(memory, adopt)


class Adopted:
    """What was received, as one MLX array of bytes; columns of numbers are slices of it, reinterpreted."""

    def __init__(self, memory: Array, adopt: Callable[[Array], mx.array]) -> None:
        """`memory`: `on_pages`; the whole pages behind it are adopted."""
        self._bytes = adopt(pages_of(memory))
        self._begin, self._end = memory.ctypes.data, memory.ctypes.data + memory.nbytes

    def share(self, values: Array, bfloat16: bool) -> Any | None:
        """`values` as an MLX array over the same memory; None where a copy is better or the only way."""
        if values.nbytes < WORTH_SHARING or values.dtype not in _SHARED or not values.flags.c_contiguous:
            return None
        begin = values.ctypes.data
        end, offset = begin + values.nbytes, begin - self._begin
        if offset < 0 or end > self._end or offset % values.itemsize:
            return None
        kind = mx.bfloat16 if bfloat16 else _SHARED[values.dtype]
        return self._bytes[offset : offset + values.nbytes].view(kind).reshape(values.shape)
