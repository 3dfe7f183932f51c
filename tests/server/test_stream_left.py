"""Loops that are left by an exception, by Ctrl-C, or by counting steps: nothing is lost and nothing comes again.

That nothing leaks either is in test_leaks.py.
"""

import _thread
import itertools
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve
from tests.running import Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("left")
    data = datafiles.parquet(folder / "rows", shards=4, rows=250)
    with Running((str(data),), folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def stream_of(client: penstock.Client) -> penstock.Stream:
    return client.stream("rows", batch_size=10, output="numpy", prefetch=4)


def test_after_an_exception_the_rest_of_the_epoch_is_there(client: penstock.Client) -> None:
    with stream_of(client) as stream:
        whole = [int(i) for batch in stream for i in batch["id"]]
        stream.reset()
        got: list[int] = []
        with pytest.raises(RuntimeError, match="a bad loss"):  # noqa: PT012
            for batch in stream:
                got += batch["id"].tolist()
                if batch.metadata.step == 41:
                    raise RuntimeError("a bad loss")
        assert got + [int(i) for batch in stream.resume() for i in batch["id"]] == whole


def test_a_counted_loop_goes_on_with_the_next_epoch_though_rows_are_left_to_be_dropped(client: penstock.Client) -> None:
    """The rows left over are in segments that were not needed yet: only the server can say that no step follows."""
    with client.stream("rows", batch_size=300, output="numpy", last="drop", pool_rows=200, prefetch=1) as stream:
        epochs = [[b["id"].tolist() for b in itertools.islice(stream, len(stream))] for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [3, 3, 3]
    assert epochs[0] != epochs[1] != epochs[2]


def test_ctrl_c_is_heard_while_the_server_is_silent_and_loses_nothing(serve: Serve, server: Running) -> None:
    data = server.paths[0]
    stopped = serve(data)
    with penstock.connect(stopped.target) as client, stream_of(client) as stream:
        got = [int(i) for _ in range(10) for i in stream.get_batch()["id"]]
        stopped.process.send_signal(signal.SIGSTOP)
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs us with &
        try:
            timer = threading.Timer(0.5, _thread.interrupt_main)
            timer.start()
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes in one of the next steps
                while True:
                    got += stream.get_batch()["id"].tolist()
            assert time.monotonic() - began < 10
        finally:
            signal.signal(signal.SIGINT, usual)
            stopped.process.send_signal(signal.SIGCONT)
        got += [int(i) for batch in stream.resume() for i in batch["id"]]
    assert sorted(got) == list(range(1000))
    assert len(got) == 1000
