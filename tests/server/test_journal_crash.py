"""A server that dies at any point of a write leaves the old journal or the new one, and a trainer that goes on with it
gets the rows of one that was never disturbed."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.crashing import CODE, POINTS, Crashing
from tests.running import Running
from tests.server.test_runs import NEW, Steps, ask, open_stream, read, rest, run_of

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("crash")
    return [
        datafiles.parquet(folder / "web", 2, 500, row_group=250),
        datafiles.parquet(folder / "code", 2, 500, first=100_000, row_group=250),
    ]


@pytest.fixture(scope="module")
def undisturbed(data: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Steps]]:
    """The whole epoch as a server gives it that never died, under the journal in a state and no other."""
    with Running(tuple(map(str, data)), tmp_path_factory.mktemp("undisturbed")) as server:

        def whole(state: dict[str, Any]) -> Steps:
            with penstock.connect(server.target) as client, open_stream(client, pool_rows=200) as stream:
                cursor = {**state["cursor"], "epoch": 0, "segment": 0, "taken": 0, "step": 0, "digest": "0" * 16}
                stream.load_state_dict({**state, "epoch": 0, "cursor": cursor}, branch=True)
                return rest(stream)

        yield whole


@pytest.mark.parametrize("point", POINTS)
def test_a_server_that_dies_leaves_the_old_state_or_the_new(
    point: str, data: list[Path], undisturbed: Callable[..., Steps], tmp_path: Path
) -> None:
    committed = POINTS.index(point) >= POINTS.index("after commit")
    server = Crashing(tuple(map(str, data)), tmp_path / "server", point=point)
    with server, penstock.connect(server.target, job="j") as client:
        stream = open_stream(client, pool_rows=200, name="train")
        got = read(stream, 10)
        state = stream.state_dict()
        with pytest.raises(penstock.ServerUnavailable):
            stream.set_mixture(NEW)
        assert server.process.wait(10) == CODE
        server.point = "none"
        server.stop()
        server.start()
        # The live stream reconnects by itself, and goes on with what is written: no row of it was made otherwise.
        tail = rest(stream)
        assert run_of(stream.state_dict())["n"] == committed
        whole = undisturbed(stream.state_dict())
        assert got + tail == whole
        assert (whole == undisturbed(state)) is not committed
        entries = ask(server, f"/api/v1/runs/{stream.run}")["entries"]
        assert [e["weights"] for e in entries] == [NEW] * committed
        # So does a trainer that is started anew from the state of before.
        resumed = open_stream(client, pool_rows=200, name="train")
        resumed.load_state_dict(state)
        assert rest(resumed) == tail
        # And the journal takes the next entry.
        resumed.set_mixture(NEW)
        assert run_of(resumed.state_dict())["n"] == committed + 1
        stream.close()
        resumed.close()


def test_a_journal_that_cannot_be_written_changes_nothing(
    serve: Serve, data: list[Path], undisturbed: Callable[..., Steps]
) -> None:
    server = serve(*data)
    with penstock.connect(server.target) as client, open_stream(client, pool_rows=200) as stream:
        got = read(stream, 10)
        with sqlite3.connect(server.folder / "state" / "journal.sqlite") as db:
            db.execute("DROP TABLE entries")
        db.close()
        with pytest.raises(
            penstock.ServerUnavailable, match=r"journal\.sqlite could not be written .*nothing has changed"
        ):
            stream.set_mixture(NEW)
        got += rest(stream)
        assert run_of(stream.state_dict())["n"] == 0
        assert got == undisturbed(stream.state_dict())
