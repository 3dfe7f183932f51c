"""Slots: each is with one side at a time, none is lost, a full place is an answer and not a crash."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.deliver.slots import HEAD, NoSlots, Pages, Slots, sweep
from penstock_service.deliver.transport import Transports

MIB = 1 << 20
WINDOW, LARGEST = 8 * MIB, 4 * MIB
ROOM = WINDOW + 2 * LARGEST


@given(
    st.lists(
        st.one_of(
            st.integers(1, LARGEST + MIB).map(lambda size: ("lease", size)),
            st.integers(0, 20).map(lambda slot: ("give back", slot)),
        ),
        max_size=60,
    )
)
def test_a_slot_is_on_one_side_at_a_time_and_keeps_what_lies_in_it(events: list[tuple[str, int]]) -> None:
    """Sizes of bundles that are leased for, and numbers that the client says it gives back, true or not."""
    slots = Slots(WINDOW, LARGEST)
    away: dict[int, npt.NDArray[np.uint8]] = {}
    try:
        for what, number in events:
            if what == "give back":
                slots.give_back([number])
                away.pop(number, None)
                continue
            slot = slots.lease()
            if slot is None:
                pages = sum(slots._backed[index] for index in away)  # whole MiB, and what larger bundles left
                assert len(away) == slots.count or ROOM - pages < LARGEST
                continue
            assert slot.index not in away
            body = slot.memory(number)
            assert body.nbytes == number
            if slot.used:
                body[:] = slot.index
                away[slot.index] = body
            else:
                slots.give_back([slot.index])
            assert slots.in_use == len(away)
            assert slots.nbytes <= HEAD + ROOM
            allocated = slots.path.stat().st_blocks * 512
            assert allocated == slots.nbytes
        for index, body in away.items():
            assert (body[[0, -1]] == index).all()
    finally:
        slots.close()


@pytest.mark.parametrize(("size", "at_once"), [(MIB, 16), (LARGEST, 4)])
def test_many_small_bundles_or_a_few_large_ones_are_away_at_a_time(size: int, at_once: int) -> None:
    slots = Slots(WINDOW, LARGEST)
    assert slots.nbytes == HEAD
    for before in (MIB, LARGEST):  # whatever was there before, it takes one bundle to get used to what there is now
        full = [slot for slot in iter(slots.lease, None) if slot.memory(before).nbytes and slot.used]
        slots.give_back([slot.index for slot in full])
        for _ in range(LARGEST // MIB):
            one = slots.lease()
            assert one is not None
            one.memory(size)
            slots.give_back([one.index])
        taken = [slot for slot in iter(slots.lease, None) if slot.memory(size).nbytes and slot.used]
        assert at_once - 1 <= len(taken) <= at_once
        slots.give_back([slot.index for slot in taken])
    slots.close()


def test_the_one_given_back_last_is_taken_first(tmp_path: Path) -> None:
    slots = Slots(8 * 4096, 4096, tmp_path)
    taken = [slots.lease() for _ in range(3)]
    assert all(slot is not None for slot in taken)
    slots.give_back([1])
    found = slots.lease()
    assert found is not None
    assert found.index == 1
    slots.close()


def test_what_is_too_large_for_a_slot_leaves_it_unused(tmp_path: Path) -> None:
    slots = Slots(4096, 4096, tmp_path)
    slot = slots.lease()
    assert slot is not None
    assert slot.memory(4097).nbytes == 4097
    used = slot.used
    slot.memory(4096)[:] = 7
    assert (used, slot.used) == (False, True)
    assert slots.path.read_bytes()[HEAD + slot.index * 4096 :][:4096] == b"\7" * 4096
    slots.close()


def test_only_who_reads_the_file_can_prove_it_and_its_name_goes_either_way(tmp_path: Path) -> None:
    for nonce, expected in ((None, True), (b"x" * 16, False), (b"", False)):
        slots = Slots(4096, 4096, tmp_path)
        assert slots.path.stat().st_mode & 0o777 == 0o600
        read = slots.path.read_bytes()[:16] if nonce is None else nonce
        assert slots.prove(read) is expected
        assert not list(tmp_path.iterdir())
        slots.close()
        slots.close()


def test_views_outlive_the_slots(tmp_path: Path) -> None:
    slots = Slots(4096, 4096, tmp_path)
    slot = slots.lease()
    assert slot is not None
    view = slot.memory(8)
    view[:] = 3
    slots.close()
    del slots, slot
    assert np.array_equal(view, np.full(8, 3, np.uint8))


def test_a_place_that_is_too_small_says_what_it_has_and_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=9, f_blocks=16, f_frsize=MIB))
    with pytest.raises(NoSlots, match=r"has 9 MiB free of 16 MiB .* at least 10 MiB; .* --shm-size=1g"):
        Slots(8 * MIB, 5 * MIB, tmp_path)
    assert not list(tmp_path.iterdir())
    Slots(8 * MIB, 4 * MIB, tmp_path).close()


def test_a_place_that_fills_up_later_leaves_the_slots_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: int, start: int, length: int) -> None:
        if start + length > HEAD + 2 * LARGEST + MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    slots = Slots(WINDOW, LARGEST, tmp_path)
    used = []
    while (slot := slots.lease()) is not None:
        assert slot.memory(2 * MIB).nbytes == 2 * MIB
        used.append(slot.used)
    assert used == [True, True, False]
    assert "bundles that find no room go over the network" in caplog.text
    slots.give_back([0])
    assert slots.lease() is not None
    slots.close()


def test_memory_is_had_also_where_it_cannot_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no posix_fallocate."""
    monkeypatch.delattr(os, "posix_fallocate")
    slots = Slots(WINDOW, LARGEST, tmp_path)
    slot = slots.lease()
    assert slot is not None
    slot.memory(LARGEST)[:] = 7
    assert slot.used
    assert slots.path.stat().st_blocks * 512 == slots.nbytes == HEAD + LARGEST
    slots.close()


def test_slots_that_nobody_uses_keep_no_memory_where_it_is_short(tmp_path: Path) -> None:
    slots = Slots(WINDOW, LARGEST, tmp_path)
    taken = [slot for slot in (slots.lease(), slots.lease()) if slot is not None]
    bodies = [slot.memory(2 * MIB) for slot in taken]
    bodies[1][:] = 9
    slots.give_back([taken[0].index])
    slots.spare()
    assert slots.path.stat().st_blocks * 512 == slots.nbytes == HEAD + 2 * MIB
    assert (bodies[1] == 9).all()
    again = slots.lease()
    assert again is not None
    again.memory(LARGEST)[:] = 1
    assert again.used
    slots.close()


def test_sessions_share_the_pages_there_are_and_give_all_back(tmp_path: Path) -> None:
    pages = Pages(6 * MIB)
    one, other = (Slots(WINDOW, LARGEST, tmp_path, pages) for _ in range(2))
    used = 0
    for slots in (one, other, one, other, one):
        slot = slots.lease()
        used += slot is not None and slot.memory(2 * MIB) is not None and slot.used
    assert used == 3
    assert (pages.left, one.nbytes + other.nbytes) == (0, 2 * HEAD + 6 * MIB)
    one.close()
    slot = other.lease()
    assert slot is not None
    slot.memory(LARGEST)
    assert slot.used
    other.close()
    assert pages.left == 6 * MIB


def test_a_folder_that_is_not_there_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(NoSlots, match="cannot be written to"):
        Slots(4096, 4096, tmp_path / "gone")


def test_what_a_killed_server_left_is_swept_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from penstock_service.deliver.slots import Slots\n"
        "slots = Slots(4096, 4096, Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    living = Slots(4096, 4096, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [living.path]
    living.close()


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("ipv4:127.0.0.1:5000", True),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:[::ffff:127.0.0.1]:5000", True),
        ("unix:", True),
        ("ipv4:192.0.2.7:5000", False),
        ("ipv6:%5B2001:db8::1%5D:5000", False),
    ],
)
def test_slots_are_offered_on_this_host_only(peer: str, here: bool) -> None:
    offer = Transports(True, 4096).offer(["shm", "grpc"], peer, 8192, 100.0)
    assert (offer.slots is not None) is here
    assert ("another host" in offer.reason) is not here
    if offer.slots is not None:
        offer.slots.close()


@pytest.mark.parametrize("saving", [False, True])
def test_slots_are_larger_than_bundles_over_grpc_unless_memory_is_short(saving: bool) -> None:
    transports = Transports(True, 1 << 20)
    transports.saving = saving
    slots = transports.offer(["shm"], "unix:", 64 << 20, 100.0).slots
    assert slots is not None
    assert slots.bundle_bytes // (1 << 20) == (1 if saving else 4)
    slots.close()


def test_what_was_not_asked_for_or_is_off_is_not_offered() -> None:
    unasked = Transports(True, 4096).offer(["grpc"], "unix:", 1, 1.0)
    assert (unasked.offered, unasked.reason) == ("grpc", "the client asked for gRPC")
    off = Transports(False, 4096).offer(["shm"], "unix:", 1, 1.0)
    assert off.slots is None
    assert "--shared-memory off" in off.reason
