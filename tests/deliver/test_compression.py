"""The chooser against links and data of every kind: it ends at what is quickest, and stays there."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from penstock_service.deliver.compression import NONE, Chooser

FRAME = 1 << 20


@dataclass
class Link:
    """A sender that compresses and writes at once, over a link of `speed`; the trainer takes at most `demand`."""

    speed: float  # bytes/s
    rates: dict[str, float]
    ratios: dict[str, float]
    demand: float = 1e18  # bytes/s of payload
    now: float = 0.0

    def cost(self, codec: str) -> float:
        """Seconds for each byte of payload."""
        if codec == NONE:
            return 1 / self.speed
        return max(1 / self.rates[codec], 1 / (self.speed * self.ratios[codec]))

    def run(self, chooser: Chooser, seconds: float) -> list[str]:
        """The codec after each decision within so many seconds."""
        until, decided = self.now + seconds, []
        while self.now < until:
            codec, size, packing = chooser.next(), FRAME, 0.0
            if codec != NONE:
                size, packing = int(FRAME / self.ratios[codec]), FRAME / self.rates[codec]
                chooser.packed(codec, FRAME, size, packing, self.now)
            needs = max(size / self.speed, packing)
            waited = FRAME / self.demand
            # A link that is not full takes what is written at once: into its buffers.
            writing = size / self.speed if needs >= waited else size / 5e9
            self.now += max(needs, waited)
            if (decision := chooser.written(size, writing, self.now)) is not None:
                assert decision.codec == chooser.codec
                decided.append(decision.codec)
        return decided


speeds = st.floats(6, 10).map(lambda power: 10.0**power)
codecs = st.fixed_dictionaries({"lz4": st.floats(1.0, 10.0), "zstd": st.floats(1.0, 20.0)})
rates = st.fixed_dictionaries({"lz4": st.floats(3e8, 3e9), "zstd": st.floats(1e8, 6e8)})


@given(speeds, rates, codecs)
def test_a_full_link_ends_at_about_the_quickest_way_and_stays(
    speed: float, rate: dict[str, float], ratio: dict[str, float]
) -> None:
    link, chooser = Link(speed, rate, ratio), Chooser(["lz4", "zstd"])
    for _ in range(40):
        link.run(chooser, max(0.6, 6 * FRAME / speed))
    best = min(link.cost(codec) for codec in (NONE, "lz4", "zstd"))
    assert link.cost(chooser.codec) <= best / 0.79 or speed > 400e6
    assert not link.run(chooser, max(5.0, 40 * FRAME / speed)), "nothing changed, and it decides otherwise"


@given(st.floats(6e8, 1e10), rates, codecs)
def test_a_fast_link_is_never_compressed_for_nor_anything_tried(
    speed: float, rate: dict[str, float], ratio: dict[str, float]
) -> None:
    chooser = Chooser(["lz4", "zstd"])
    assert not Link(speed, rate, ratio).run(chooser, 3.0)
    assert not chooser._known


def test_a_link_that_compression_relieves_is_not_taken_for_a_fast_one() -> None:
    link = Link(10e6, {"lz4": 5e8}, {"lz4": 3.0}, demand=20e6)
    chooser = Chooser(["lz4"])
    decided = link.run(chooser, 600)
    assert decided[0] == "lz4"
    assert len(decided) <= 1 + 2 * 600 / 60, "it begins and ends it again and again"


def test_a_link_that_becomes_fast_is_found_out_in_minutes() -> None:
    link, chooser = Link(10e6, {"lz4": 5e8}, {"lz4": 3.0}), Chooser(["lz4"])
    link.run(chooser, 20)
    assert chooser.codec == "lz4"
    link.speed, link.demand = 5e9, 50e6
    link.run(chooser, 400)
    assert chooser.codec == NONE


def test_what_the_decision_says() -> None:
    link, chooser = Link(10e6, {"zstd": 4e8}, {"zstd": 3.0}), Chooser(["zstd"])
    decision = None
    while decision is None:
        codec = chooser.next()
        size = FRAME if codec == NONE else FRAME // 3
        if codec != NONE:
            chooser.packed(codec, FRAME, size, FRAME / 4e8, link.now)
        link.now += size / 10e6
        decision = chooser.written(size, size / 10e6, link.now)
    assert decision == ("zstd", "the link carries 10 MB/s, zstd packs 3.0 to 1 at 400 MB/s")


def test_without_codecs_nothing_is_decided() -> None:
    chooser = Chooser([])
    assert not Link(1e6, {}, {}).run(chooser, 60)
