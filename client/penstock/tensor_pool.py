"""`TensorPool`: memory for tensors that is used again, and tensors that are kept by name, under one hard cap."""

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from penstock.blocks import U8, Blocks
from penstock.errors import InvalidRequest

MAX_BYTES = 512 << 20


@dataclass(frozen=True)
class PoolCounters:
    """What a pool did in this process."""

    reused: int  # allocations that got memory used before
    allocated: int  # those that got new memory, which is kept for later ones
    plain: int  # those that the cap left no room for, or that the pool does not make (MLX): ordinary memory
    hits: int  # of `get`
    misses: int
    evicted: int  # tensors dropped to make room for newer ones, or not kept for want of it
    bytes: int  # held now: lent, idle and kept by name; never above max_bytes
    idle_bytes: int  # of these: waiting to be used again


class TensorPool:
    """Memory that outlives tensors: allocated once for each common size, used again when its last tensor is gone.

    Every stream receives into a pool: one of its own, or the one it is given. May be used by several threads. A pickled
    pool arrives as a new, empty one of the same size; a child of a fork begins with an empty one too.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """`max_bytes`: what it never exceeds. Beyond it `allocate` gives ordinary memory and counts it as `plain`.

        Raises:
            InvalidRequest: below 1.
        """
        self._blocks = Blocks(max_bytes)
        self._begin()

    def _begin(self) -> None:
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # the one used last comes last
        self._lock = threading.Lock()
        self._locked: Blocks | None = None
        self._may_lock = True
        self._pid = self._blocks.here().pid
        self._hits = self._misses = self._evicted = self._foreign = 0

    @property
    def max_bytes(self) -> int:
        return self._blocks.max_bytes

    def allocate(self, shape: int | Sequence[int], dtype: Any) -> Any:
        """A tensor `shape` that holds whatever its memory held before.

        Args:
            shape: its dimensions.
            dtype: `torch.float32` gives a torch tensor on the CPU, "float32" or `np.float32` a NumPy array,
                `mlx.core.float32` an MLX array of zeros: from MLX's own pool, because arrays of MLX cannot be written
                through memory of ours.

        Raises:
            InvalidRequest: a dimension or a dtype that is none.
        """
        dims = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in dims):
            raise InvalidRequest(f"shape={shape}: dimensions must be 0 or more")
        count = math.prod(dims)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(dtype, torch.dtype):
            if count == 0:
                return torch.empty(dims, dtype=dtype)
            return torch.from_numpy(self.buffer(count * dtype.itemsize)).view(dtype).view(dims)
        mlx = sys.modules.get("mlx.core")
        if mlx is not None and isinstance(dtype, mlx.Dtype):
            with self._own():
                self._foreign += 1
            return mlx.zeros(dims, dtype=dtype)
        try:
            kind: np.dtype[Any] = np.dtype(dtype)
        except TypeError as error:
            raise InvalidRequest(
                f"dtype={dtype!r}: must be a dtype of torch, NumPy or MLX, or a name like 'float32'"
            ) from error
        if kind.hasobject:
            raise InvalidRequest(f"dtype={dtype!r}: Python objects cannot lie in memory that is used again")
        if count * kind.itemsize == 0:
            return np.empty(dims, kind)
        return self.buffer(count * kind.itemsize).view(kind).reshape(dims)

    def buffer(self, size: int) -> U8:
        """uint8 `[size]`, writable; used again when the last view of it is gone."""
        memory = self._blocks.take(size)
        return np.empty(size, np.uint8) if memory is None else memory

    def page_locked(self, size: int, make: Callable[[int], Any]) -> U8 | None:
        """The same of memory that `make` locks, for copies to a GPU; None: there is no room.

        A quarter of the pool is set aside for it when it is first asked for.
        """
        with self._own():
            if self._locked is None and self._may_lock:
                self._may_lock = self._blocks.reserve(self.max_bytes // 4)
                if self._may_lock:
                    self._locked = Blocks(max(1, self.max_bytes // 4), make)
            locked = self._locked
        return locked.take(size) if locked is not None else None

    def cache(self, name: str, tensor: Any) -> bool:
        """Keep a tensor by name, in place of one of that name. Those not used longest are dropped to make room.

        What is kept counts towards `max_bytes`; a tensor of `allocate` or of a stream counts already.

        Returns:
            whether it is kept: False where tensors that the program holds leave no room.

        Raises:
            InvalidRequest: no tensor, or one that is larger than the whole pool.
        """
        size, address = _extent(tensor)
        size = 0 if self._blocks.lends(address) else size
        if size > self.max_bytes:
            raise InvalidRequest(
                f"cache({name!r}): the tensor has {size} bytes, the pool {self.max_bytes}: "
                f"make it with TensorPool(max_bytes={size}) or more"
            )
        dropped = []  # dies after the lock is released: whatever hangs on it may come back to us
        with self._own():
            if (old := self._kept.pop(name, None)) is not None:
                dropped.append(old[0])
                self._blocks.release(old[1])
            del old
            kept = self._blocks.reserve(size)
            while not kept and self._kept:
                _, (least, freed) = self._kept.popitem(last=False)
                dropped.append(least)
                self._blocks.release(freed)
                self._evicted += 1
                kept = self._blocks.reserve(size)
            if kept:
                self._kept[name] = (tensor, size)
            else:
                self._evicted += 1
        return kept

    def get(self, name: str) -> Any | None:
        """The tensor kept by that name, or None; hits and misses are counted."""
        with self._own():
            found = self._kept.get(name)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._kept.move_to_end(name)
            return found[0]

    def clear(self) -> None:
        """Forget what is kept by name, and let go of memory that no tensor uses."""
        with self._own():
            kept = list(self._kept.values())
            self._kept.clear()
        for _, size in kept:
            self._blocks.release(size)
        kept.clear()
        self._blocks.clear()

    @property
    def counters(self) -> PoolCounters:
        """Now, in this process."""
        here, idle = self._blocks.here(), self._blocks.idle_bytes
        with self._own():
            return PoolCounters(
                here.reused,
                here.allocated,
                here.plain + self._foreign,
                self._hits,
                self._misses,
                self._evicted,
                here.held + here.elsewhere,
                idle,
            )

    def _own(self) -> threading.Lock:
        """The lock of this process: a child of a fork begins anew."""
        if self._pid != self._blocks.here().pid:
            self._begin()
        return self._lock

    def __repr__(self) -> str:
        return f"<penstock.TensorPool of {self.max_bytes} bytes: {self.counters}>"

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self.max_bytes,)


def _extent(tensor: Any) -> tuple[int, int]:
    """Bytes that a tensor keeps alive, and where they begin; 0 where that cannot be one of ours."""
    torch, mlx = sys.modules.get("torch"), sys.modules.get("mlx.core")
    if torch is not None and isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
        storage = tensor.untyped_storage()
        return int(storage.nbytes()), int(storage.data_ptr()) if tensor.device.type == "cpu" else 0
    if isinstance(tensor, np.ndarray):
        while isinstance(tensor.base, np.ndarray):
            tensor = tensor.base
        return int(tensor.nbytes), int(tensor.ctypes.data)
    if mlx is not None and isinstance(tensor, mlx.array):
        return int(tensor.nbytes), 0
    raise InvalidRequest(f"a TensorPool keeps dense torch tensors, MLX and NumPy arrays, not {type(tensor).__name__}")
