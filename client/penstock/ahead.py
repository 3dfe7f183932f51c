"""The step after the one in hand, on its way to the device before its turn."""

from penstock.cutting import Cutting
from penstock.receiver import Received, Receiver


class Ahead:
    """Brings steps along one ahead of use. The position stays where it is: what fails here is raised in its turn."""

    def __init__(self) -> None:
        self._coming: tuple[Received, Cutting] | None = None  # opened before its turn

    def bring(self, bundle: Cutting, receiver: Receiver | None) -> None:
        """Begin with the next step of `bundle`, and the one after it if that is here: it may be in the next bundle."""
        try:
            if bundle.prepare(2) == 2 or receiver is None or self._coming is not None:
                return
            item = receiver.peek()
            if isinstance(item, Received):
                coming = bundle.cutter.open(item, bundle.end())
                coming.prepare(1)
                self._coming = (item, coming)
        except Exception:  # noqa: BLE001, S110 - whatever it is, it is raised again when that step's turn comes
            pass

    def take(self, item: Received) -> Cutting | None:
        """The bundle of `item`, if it was opened before its turn."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] is item else None

    def forget(self) -> None:
        """The stream has ended: nothing of it comes any more."""
        self._coming = None
