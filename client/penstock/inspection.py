"""Steps of a stream looked at and left out: what a `Stream` can besides delivering."""

from penstock.arguments import whole
from penstock.errors import InvalidRequest
from penstock.explanation import Explanation, ask
from penstock.link import Link
from penstock.puller import Puller
from penstock_proto.v1 import control_pb2
from penstock_proto.v1.skips import joined, named, skipped_from, too_many


class Inspection:
    """The part of a `Stream` that is about single steps."""

    _link: Link
    _puller: Puller

    def skip(self, steps: range, epoch: int | None = None) -> None:
        """Pass over these steps of an epoch (default: the one being read): no rank gets their rows.

        Step numbers keep their meaning: after `skip(range(10, 12))` step 9 is followed by step 12. May be called at any
        time before the steps have come, also while iterating; all ranks must skip the same. State carries it.

        Raises:
            InvalidRequest: steps that were received already, or no range of steps.
        """
        epoch = self._puller.epoch if epoch is None else whole("epoch", epoch)
        if not isinstance(steps, range) or steps.step != 1 or not 0 <= steps.start < steps.stop < 1 << 63:
            raise InvalidRequest(
                f"skip({steps!r}, epoch={epoch}): must be a range of steps from 0 on, one after the other, such as "
                "range(5000, 5050)"
            )
        wanted = (epoch, steps.start, steps.stop)
        if (epoch, steps.start) < (self._puller.epoch, self._puller.step):
            raise InvalidRequest(
                f"{named((wanted,))} cannot be skipped: this stream is at step {self._puller.step} of epoch "
                f"{self._puller.epoch}, what comes before was received"
            )
        skips = joined([*self._puller.skipped, wanted])
        if (why := too_many(skips)) is not None:
            raise InvalidRequest(f"{named((wanted,))} cannot be skipped too: {why}")
        self._puller.skip(skips)

    def explain(self, step: int, epoch: int | None = None, *, all_ranks: bool = False) -> Explanation:
        """Dataset, shard, row and segment of each row of a step (default: of the epoch being read), undelivered.

        Any step will do, received, to come or skipped; the stream stays where it is. Costs what planning the segments
        up to the step costs, from where the stream is or else from the epoch's start; with filters they are read.
        Steps that lie behind are taken to have had the size they have now. Connects.

        Args:
            all_ranks: the rows of all ranks, not of this one alone.

        Raises:
            InvalidRequest: there is no such step; the text says how many there are.
        """
        step, epoch = whole("step", step), self._puller.epoch if epoch is None else whole("epoch", epoch)
        self._puller.ensure_open()
        asked = control_pb2.ExplainRequest(
            open=self._puller.open_message(self._puller.cursor()), step=step, epoch=epoch, all_ranks=all_ranks
        )
        skipped = skipped_from(self._puller.skipped, epoch, step) > 0
        return Explanation(epoch, step, skipped, ask(self._link, asked))
