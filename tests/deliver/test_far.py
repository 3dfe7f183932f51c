"""Files mapped far from everything else."""

import gc
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from penstock_service.deliver.far import map_far


def mapped(name: str) -> int:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("counts what the kernel shows, which only Linux does")
    return sum(name in line for line in maps.read_text().splitlines())


def test_a_mapping_shares_the_bytes_of_the_file_and_goes_with_the_last_view() -> None:
    with tempfile.NamedTemporaryFile(prefix="penstock-far-") as file:
        os.ftruncate(file.fileno(), 10_000)
        memory = map_far(file.fileno(), 10_000)
        other = map_far(file.fileno(), 10_000)
        assert not np.may_share_memory(memory, other)
        memory[4096:4100] = 7
        assert other[4095:4101].tolist() == [0, 7, 7, 7, 7, 0]
        assert os.pread(file.fileno(), 5, 4096) == b"\x07\x07\x07\x07\x00"
        assert mapped(file.name) == 2
        view = memory[5000:].view(np.uint16)
        del memory, other
        gc.collect()
        assert mapped(file.name) == 1
        view[0] = 259
        assert os.pread(file.fileno(), 2, 5000) == b"\x03\x01"
        del view
        assert mapped(file.name) == 0


def test_it_lies_apart_from_what_is_mapped_as_usual() -> None:
    with tempfile.NamedTemporaryFile() as file:
        os.ftruncate(file.fileno(), 1 << 20)
        maps = [mmap.mmap(file.fileno(), 1 << 20)]
        far = map_far(file.fileno(), 1 << 20)
        maps += [mmap.mmap(file.fileno(), 1 << 20) for _ in range(20)]
        places = [np.frombuffer(one, np.uint8).ctypes.data for one in maps]
        assert not min(places) < far.ctypes.data < max(places)


def test_what_cannot_be_mapped_is_an_error() -> None:
    with pytest.raises(OSError, match=r"[Bb]ad file"):
        map_far(-1, 4096)
