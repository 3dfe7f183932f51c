"""A place that fails again and again: its units rest instead of burning retries, and all go on when it is back."""

import asyncio
from pathlib import Path

import pytest

from penstock_service.core.breaker import Limits
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import SourceUnreadable
from penstock_service.core.retry import Retry
from tests.chunks import makers
from tests.chunks.conftest import Running

UNITS = 12


@pytest.fixture
def toy(tmp_path: Path) -> DatasetVersion:
    return makers.dataset(tmp_path / "data", [1] * UNITS)


def broken(toy: DatasetVersion, times: int) -> None:
    for chunk in range(UNITS):
        makers.order(toy.root, f"source-{chunk}", times)


def reads(toy: DatasetVersion) -> int:
    return sum(makers.marks(toy.root, f"source-{chunk}") for chunk in range(UNITS))


def test_units_of_a_broken_place_rest_until_a_probe_succeeds(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        broken(toy, 1000)
        retry = Retry(max_retries=3, base_seconds=0.001, cap_seconds=0.01, deadline_seconds=60)
        async with running(makers.make_badly, retry=retry, breaker=Limits(4, 0.05)) as chunks:
            asking = asyncio.gather(*(chunks.info(toy, c) for c in range(UNITS)), return_exceptions=True)
            while all(place.state == "closed" for place in chunks.places()):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)
            (place,) = chunks.places()
            assert place.place == toy.root
            assert place.failures >= 4
            assert "cannot be read now" in place.error
            broken(toy, 0)  # it is back
            got = await asking
            # Those that were tried too often before it opened have failed; the others only waited.
            assert sum(isinstance(x, SourceUnreadable) for x in got) <= 1
            assert chunks.places()[0].state == "closed"
            # Without the breaker each unit would have been tried four times.
            assert reads(toy) < UNITS * 4
            assert len(await chunks.infos(toy, range(UNITS))) == UNITS

    asyncio.run(main())


def test_a_place_that_stays_broken_fails_what_waits_at_the_deadline_with_the_last_error(
    running: Running, toy: DatasetVersion
) -> None:
    async def main() -> None:
        broken(toy, 1000)
        retry = Retry(max_retries=2, base_seconds=0.001, cap_seconds=0.01, deadline_seconds=0.3)
        async with running(makers.make_badly, retry=retry, breaker=Limits(3, 0.05)) as chunks:
            got = await asyncio.gather(*(chunks.info(toy, c) for c in range(UNITS)), return_exceptions=True)
            assert all(isinstance(x, SourceUnreadable) for x in got)
            resting = [str(x) for x in got if "is tried again only now and then" in str(x)]
            assert resting
            assert all(toy.root in text and "cannot be read now" in text for text in resting)
            # From then on whoever comes is refused at once but for the probes.
            before = reads(toy)
            with pytest.raises(SourceUnreadable):
                await chunks.infos(toy, range(UNITS))
            assert reads(toy) - before <= 2

    asyncio.run(main())


def test_files_that_are_gone_or_bad_break_no_place(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        for chunk in range(UNITS):
            makers.order(toy.root, f"data-{chunk}", 1000)
        async with running(makers.make_badly, breaker=Limits(2, 60.0)) as chunks:
            got = await asyncio.gather(*(chunks.info(toy, c) for c in range(UNITS)), return_exceptions=True)
            assert {type(x).__name__ for x in got} == {"DataError"}
            assert chunks.places()[0].state == "closed"

    asyncio.run(main())
