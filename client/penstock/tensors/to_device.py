"""Steps on their way to a device. Imports torch; loaded where `device=` or `pin_memory=` ask for it."""

from collections import deque
from typing import Any, NamedTuple, Protocol

import torch

from penstock.batch import Batch
from penstock.errors import InvalidRequest
from penstock.tensor_pool import TensorPool


class Carrier(Protocol):
    """Brings batches to where they are wanted: begun ahead of use, finished when the loop asks for them."""

    def begin(self, batch: Batch) -> Any:
        """Start; what it returns is for `finish`, and no longer refers to the batch's memory where that was copied."""
        ...

    def finish(self, begun: Any) -> Batch:
        """The batch, to be used by whatever the caller does next on its own stream. May be called again."""
        ...

    def close(self) -> None:
        """Wait for copies under way; may be called twice."""
        ...


class Plain:
    """Where there is no stream beside the user's: the CPU (nothing to do), MPS, and page-locked memory alone."""

    def __init__(self, device: torch.device | None, pin_memory: bool) -> None:
        self._device = device
        # torch's own pinned allocator: it knows when a copy that the user began with non_blocking=True has ended.
        self._pin = pin_memory and (device is None or device.type == "cuda")

    def begin(self, batch: Batch) -> Batch:
        """See `Carrier.begin`."""
        if self._pin:
            batch = batch.pin_memory()
        return batch.to(self._device) if self._device is not None else batch

    def finish(self, begun: Batch) -> Batch:
        """See `Carrier.finish`."""
        return begun

    def close(self) -> None:
        """See `Carrier.close`."""


class _Begun(NamedTuple):
    batch: Batch
    copied: bool  # is anything under way?
    event: Any  # of the copy's stream, behind its last copy


class SideStream:
    """CUDA: into page-locked memory at once, then to the GPU on a stream of its own, which the user's waits for."""

    def __init__(self, device: torch.device, pool: TensorPool, cuda: Any = torch.cuda) -> None:
        """`cuda`: the module with the streams and events of the device."""
        self._device = device
        self._cuda = cuda
        self._pool = pool
        self._stream = cuda.Stream(device)
        self._under_way: deque[tuple[Any, list[torch.Tensor]]] = deque()  # (event, what it is copied from)

    def begin(self, batch: Batch) -> _Begun:
        """See `Carrier.begin`."""
        self._let_go_done()
        staged = {name: self._staged(value) for name, value in batch.items() if _dense(value)}
        moved = dict(batch)
        with self._cuda.stream(self._stream):
            for name, tensor in staged.items():
                moved[name] = tensor.to(self._device, non_blocking=True)
            event = self._cuda.Event()
            event.record(self._stream)
        self._under_way.append((event, list(staged.values())))
        return _Begun(Batch(moved, batch.metadata), bool(staged), event)

    def finish(self, begun: _Begun) -> Batch:
        """See `Carrier.finish`."""
        current = self._cuda.current_stream(self._device)
        if begun.copied:
            current.wait_event(begun.event)
        for name, value in begun.batch.items():
            if not isinstance(value, torch.Tensor):
                continue
            if value.device.type == self._device.type and _dense(value):
                # The copy's stream allocated it: not to be reused there before the user's stream is done with it.
                value.record_stream(current)
            else:
                begun.batch[name] = value.to(self._device)  # sparse
        return begun.batch

    def close(self) -> None:
        """See `Carrier.close`."""
        while self._under_way:
            event, _ = self._under_way.popleft()
            event.synchronize()

    def _let_go_done(self) -> None:
        """What copies that have ended were made from may be written again."""
        while self._under_way and self._under_way[0][0].query():
            self._under_way.popleft()

    def _staged(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in page-locked memory."""
        size = tensor.numel() * tensor.element_size()
        memory = self._pool.page_locked(size, _page_locked) if size else None
        if memory is None:
            return tensor.pin_memory()
        return torch.from_numpy(memory).view(tensor.dtype).view(tensor.shape).copy_(tensor)


def carrier_of(device: Any, pin_memory: bool, pool: TensorPool) -> Carrier:
    """For `device` as it was given to `stream`; "cuda" is the current one from now on.

    Raises:
        InvalidRequest: there is no such device here.
    """
    found = check_device(device)
    if found is not None and found.type == "cuda":
        return SideStream(torch.device("cuda", torch.cuda.current_device()) if found.index is None else found, pool)
    return Plain(found, pin_memory)


def check_device(device: Any) -> torch.device | None:
    """The device, if it is here.

    Raises:
        InvalidRequest: it is not; with what is, and the cure.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidRequest(
            f"device={device!r}: torch knows no such device; give 'cuda', 'cuda:1', 'mps' or 'cpu', or a torch.device"
        ) from error
    if found.type == "cuda":
        _check_cuda(device, found)
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidRequest(f"device={device!r}: {_sees('Apple GPU')}; take device='cpu', or leave it out")
    elif found.type == "meta":
        raise InvalidRequest(f"device={device!r}: tensors there hold no data; leave it out")
    elif found.type not in ("cpu", "mps"):
        try:
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError, ImportError) as error:
            raise InvalidRequest(
                f"device={device!r}: this torch ({torch.__version__}) cannot use it here: {error}; leave it out"
            ) from error
    return found


def _check_cuda(device: Any, found: torch.device) -> None:
    if not torch.cuda.is_available():
        raise InvalidRequest(
            f"device={device!r}: {_sees('CUDA GPU')}: look at nvidia-smi and CUDA_VISIBLE_DEVICES, install a torch "
            "that was built for CUDA, or leave device out"
        )
    count = torch.cuda.device_count()
    if found.index is not None and found.index >= count:
        raise InvalidRequest(
            f"device={device!r}: there are {count} CUDA GPUs here, from cuda:0 to cuda:{count - 1}; "
            "device='cuda' is the current one"
        )


def _sees(what: str) -> str:
    return f"this torch ({torch.__version__}) sees no {what}"


def _dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def _page_locked(size: int) -> Any:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy().data
