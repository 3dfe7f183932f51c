"""A step as the training loop sees it: a dict of tensors whose keys are attributes too."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidRequest


@dataclass(slots=True)
class BatchMetadata:
    """Where a batch comes from. Not frozen: one is made for every step, and that would take five times as long."""

    epoch: int
    step: int  # of the epoch, from 0
    rows: int  # at this rank; the leading dimension of every tensor that is not ragged
    rank: int
    world_size: int
    ids: "npt.NDArray[np.int64] | None" = None  # with row_ids=True: each row's number in its dataset, as stored
    source: "npt.NDArray[np.int32] | None" = None  # with row_ids=True: which of the stream's datasets it is of
    substituted: "npt.NDArray[np.bool_] | None" = None  # [rows], true where a row stands for a bad one; None: nowhere


class Batch(dict[str, Any]):
    """Column name to tensor, each `[rows, ...]`. `batch.x` is `batch["x"]`; methods of dict win over columns.

    `metadata` is an attribute and no key, so that `model(**batch)` and
    `{name: tensor.to(device) for name, tensor in batch.items()}` see tensors only. A batch that a framework rebuilt
    from a plain dict has none: reading it then raises AttributeError.
    """

    __slots__ = ("metadata",)

    metadata: BatchMetadata

    def __init__(
        self, columns: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), metadata: BatchMetadata | None = None
    ) -> None:
        super().__init__(columns)
        if metadata is not None:
            _set_metadata(self, metadata)
        elif isinstance(columns, Batch) and hasattr(columns, "metadata"):
            _set_metadata(self, columns.metadata)

    def __getattr__(self, name: str) -> Any:
        # Python comes here only when there is no such attribute, so the methods of dict are never hidden.
        if name == "metadata":
            raise AttributeError("this batch has no metadata: it was rebuilt from a plain dict")
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no column {name!r}; it has {', '.join(self) or 'none'}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "metadata":
            _set_metadata(self, value)
        elif hasattr(type(self), name):
            raise AttributeError(f"{name!r} is a method of every batch: to set a column write batch[{name!r}] = ...")
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"the batch has no column {name!r}")
        del self[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self if name.isidentifier())]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), getattr(self, "metadata", None))

    def copy(self) -> "Batch":
        """The same tensors in a new batch."""
        return Batch(self)

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """A new batch with every torch tensor on `device`; lists of strings stay as they are.

        Raises:
            InvalidRequest: the batch holds MLX or NumPy arrays, which have no device to go to.
        """
        tensor = self._torch_tensor("to()")
        return self._mapped(
            lambda value: value.to(device, non_blocking=non_blocking) if isinstance(value, tensor) else value
        )

    def pin_memory(self) -> "Batch":
        """A new batch with every torch tensor copied into page-locked memory, from where copies to a GPU overlap.

        Where torch sees no accelerator, or one that shares the CPU's memory (MPS), the batch is returned as it is.

        Raises:
            InvalidRequest: the batch holds MLX or NumPy arrays.
        """
        tensor = self._torch_tensor("pin_memory()")
        if not _pins():
            return self
        return self._mapped(lambda value: value.pin_memory() if isinstance(value, tensor) else value)

    def _mapped(self, change: Any) -> "Batch":
        return Batch({name: change(value) for name, value in self.items()}, getattr(self, "metadata", None))

    def _torch_tensor(self, wanted: str) -> type[Any]:
        """torch.Tensor; raises where the batch holds arrays that are none."""
        torch = sys.modules.get("torch")
        for name, value in self.items():
            if isinstance(value, list) or (torch is not None and isinstance(value, torch.Tensor)):
                continue
            if type(value).__module__.partition(".")[0] == "mlx":
                raise InvalidRequest(
                    f"batch.{wanted} is for output='torch': column {name!r} is an MLX array. MLX arrays live in memory "
                    "that CPU and GPU share, so there is nothing to move; use the batch as it is"
                )
            raise InvalidRequest(
                f"batch.{wanted} is for output='torch': column {name!r} is {type(value).__name__}. "
                "Open the stream with output='torch', or convert the column yourself"
            )
        return torch.Tensor if torch is not None else _NoTensor


class _NoTensor:
    """Stands for torch.Tensor where torch is not imported: a batch of nothing but lists."""


# Straight to the slot: a batch is made per step, and our own __setattr__ would cost more than the rest of it.
_set_metadata = Batch.__dict__["metadata"].__set__


def _pins() -> bool:
    """Is there an accelerator that copies out of page-locked memory? Apple's shares the CPU's."""
    torch = sys.modules["torch"]
    if hasattr(torch, "accelerator") and torch.accelerator.is_available():  # from torch 2.6
        return bool(torch.accelerator.current_accelerator().type != "mps")
    return bool(torch.cuda.is_available())
