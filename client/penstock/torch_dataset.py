"""A stream as torch's own type, for trainers that want a `DataLoader`. Imported only when asked for: torch is heavy."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

if TYPE_CHECKING:
    from penstock.stream import Stream


class StreamDataset(IterableDataset[Any]):
    """What `Stream.as_dataset` gives: an item is a whole batch, so the loader must not batch: `batch_size=None`.

    An iterator is an epoch of the stream; epoch and state are the stream's own.
    """

    def __init__(self, stream: "Stream") -> None:
        super().__init__()
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        return iter(self.stream)

    def __len__(self) -> int:
        return len(self.stream)

    def set_epoch(self, epoch: int) -> None:
        """See `Stream.set_epoch`. Accelerate and the Hugging Face Trainer call it."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Stream.state_dict`. A loader that fetches ahead has taken a batch more than it handed out."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Stream.load_state_dict`."""
        self.stream.load_state_dict(state)
