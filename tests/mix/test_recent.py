"""Which segments are remembered: the latest, small ones as long as they are few, and none that lacks something."""

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import SourceUnreadable
from penstock_service.core.segment import BadUnits, Segment
from penstock_service.mix.recent import LATEST, Key, Recent

FEW, MIB = 64, 1 << 20

made = st.tuples(st.integers(0, 90), st.sampled_from([0, 1, 6 * MIB // 8, 20 * MIB // 8]), st.integers(0, 1))


def segment(units: int, lost: int) -> Segment:
    one = np.zeros(lost, np.int64)
    bad = BadUnits(one, one, one, {0: SourceUnreadable("gone")} if lost else {})
    return Segment(0, np.zeros(units, np.uint32), np.zeros(units, np.uint32), 0, bad)


@given(st.lists(made, max_size=100), st.sets(st.integers(0, 90)), st.booleans())
def test_what_is_trimmed(begun: list[tuple[int, int, int]], unmade: set[int], small: bool) -> None:
    async def history() -> None:
        recent, latest = Recent(), LATEST if small else 1
        asked: dict[Key, Segment] = {}
        few = True  # at any time
        for number, units, lost in begun:
            key = (0, number)
            recent.drop(key)
            recent.put(key, future := asyncio.get_running_loop().create_future())  # type: ignore[arg-type]
            asked.pop(key, None)
            asked[key] = segment(units, lost)
            if number not in unmade:
                future.set_result(asked[key])
                recent.made(key, asked[key])
            few = few and len(asked) <= FEW and sum(s.nbytes for s in asked.values()) <= 16 * MIB
            recent.trim(latest, small=small)
        kept = [key for key in asked if recent.get(key) is not None]
        assert [k for k in asked if k[1] in unmade or k in list(asked)[-latest:]] == [
            k for k in kept if k[1] in unmade or k in list(asked)[-latest:]
        ], "what is being made, or was asked for last, stays"
        older = [key for key in kept if key not in list(asked)[-latest:] and key[1] not in unmade]
        assert not [key for key in older if asked[key].lost]
        if older:
            assert small
            assert len(kept) <= FEW
            assert sum(asked[key].nbytes for key in kept if key[1] not in unmade) <= 16 * MIB
        assert recent.nbytes == sum(asked[key].nbytes for key in kept if key[1] not in unmade)
        if small and few:
            gone = [key for key in asked if key not in kept]
            assert all(asked[key].lost for key in gone), "small ones that are few stay"
        recent.drop_made()
        assert recent.nbytes == 0
        assert {key for key in asked if recent.get(key) is not None} == {key for key in asked if key[1] in unmade}

    asyncio.run(history())
