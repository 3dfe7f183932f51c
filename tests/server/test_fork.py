"""A fork in mid-bundle: what the child gets, while the parent gives back the memory that both have mapped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve


@pytest.fixture
def client(serve: Serve, tmp_path: Path) -> Iterator[penstock.Client]:
    data = datafiles.parquet(tmp_path / "rows", shards=4, rows=5000)
    with penstock.connect(serve(data).target) as found:
        yield found


def in_a_child(do: Callable[[], bool]) -> Callable[[], bool]:
    """Fork; what is returned lets the child begin, and tells what it found."""
    begin_read, begin = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.read(begin_read, 1)
            code = 0 if do() else 2
        finally:
            os._exit(code)

    def ask() -> bool:
        os.write(begin, b"x")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(begin)
        os.close(begin_read)
        assert code in (0, 2)
        return code == 0

    return ask


@pytest.mark.every_transport
def test_a_child_gets_its_rows_though_the_parent_goes_on_within_the_same_bundle(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=10, output="numpy", shuffle=False)
    loop = iter(stream)
    next(loop)

    def rest_is_right() -> bool:
        return [b["id"].tolist() for b in loop] == [list(range(at, at + 10)) for at in range(10, 20_000, 10)]

    ask = in_a_child(rest_is_right)
    for _ in loop:
        pass
    for _ in range(3):  # the server writes over what was given back
        assert sum(len(batch["id"]) for batch in stream) == 20_000
    assert ask()
