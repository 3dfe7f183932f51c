"""What goes wrong is said clearly: what, where, how many, what to do. Each test reads the message."""

import concurrent.futures
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock_proto.v1 import data_pb2 as pb
from tests import datafiles
from tests.running import DidNotStart, Running

Serve = Callable[..., Running]


def refusal(serve: Serve, *arguments: object) -> str:
    with pytest.raises(DidNotStart) as caught:
        serve(*arguments)
    assert caught.value.code == 1
    assert "Traceback" not in caught.value.stderr
    return caught.value.stderr


# -- at the server's start -------------------------------------------------------------------------------------------


def test_an_empty_folder_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    text = refusal(serve, tmp_path / "nothing")
    assert str(tmp_path / "nothing") in text
    assert ".parquet" in text


def test_a_path_that_is_not_there_is_named(serve: Serve, tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in refusal(serve, tmp_path / "gone")


def test_a_folder_without_a_readable_file_says_what_it_holds_and_what_can_be_read(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.bmp").write_bytes(b"BM")
    text = refusal(serve, folder)
    assert "3" in text
    assert ".bmp" in text
    assert ".parquet" in text


def test_a_truncated_parquet_file_is_named_with_the_reason(serve: Serve, tmp_path: Path) -> None:
    folder = datafiles.parquet(tmp_path / "cut", 3, 500)
    whole = (folder / "0001.parquet").read_bytes()
    (folder / "0001.parquet").write_bytes(whole[:-200])
    text = refusal(serve, folder)
    assert "0001.parquet" in text
    assert f"byte {len(whole) - 208}" in text


def test_shards_that_disagree_are_both_named_with_the_column(serve: Serve, tmp_path: Path) -> None:
    folder = datafiles.parquet(tmp_path / "mixed", 2, 100)
    pq.write_table(pa.table({"id": ["a"], "x": [1.0], "y": [2]}), folder / "0007.parquet")
    text = refusal(serve, folder)
    assert "0007.parquet" in text
    assert "0000.parquet" in text
    assert "'id'" in text or '"id"' in text or "column id" in text
    assert "string" in text
    assert "int64" in text


@pytest.mark.parametrize(("flag", "what"), [("--grpc", "gRPC"), ("--http", "HTTP")])
def test_a_port_in_use_says_which_and_what_to_do(serve: Serve, tmp_path: Path, flag: str, what: str) -> None:
    data = datafiles.parquet(tmp_path / "a", 1, 10)
    first = serve(data)
    taken = first.target if flag == "--grpc" else first.http
    second = Running((str(data),), tmp_path / "second")
    if flag == "--grpc":
        second.target = taken
    else:
        second.http = taken
    with pytest.raises(DidNotStart) as caught:
        second.start()
    assert f"cannot listen on {taken} for {what}" in caught.value.stderr
    assert f"choose another {flag} address" in caught.value.stderr


def test_a_second_server_on_one_state_folder_is_told_who_holds_it(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "a", 1, 10)
    first = serve(data)
    text = refusal(serve, data)
    assert f"pid {first.process.pid}" in text
    assert first.target in text
    assert "--state-dir" in text


# -- at the client ---------------------------------------------------------------------------------------------------


@pytest.fixture
def line(serve: Serve, tmp_path: Path) -> Running:
    return serve(datafiles.parquet(tmp_path / "titanic", 2, 500))


def first_batch(client: penstock.Client, dataset: object = "titanic", **wish: object) -> object:
    stream = client.stream(dataset, **{"batch_size": 8, "output": "numpy", **wish})  # type: ignore[arg-type]
    return next(iter(stream))


def test_an_unknown_dataset_names_the_nearest(line: Running) -> None:
    with penstock.connect(line.target) as client:
        with pytest.raises(penstock.DatasetNotFound, match="titanic"):
            first_batch(client, "titanik")
        with pytest.raises(penstock.DatasetNotFound, match="titanic"):
            client.get("titanik")


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"batch_size": None}, "give one of them"),
        ({"batch_size": None, "global_batch_size": 10, "rank": 0, "world_size": 4}, "8 and 12"),
        ({"rank": 4, "world_size": 4}, "rank=4"),
        ({"rank": 0}, "give both"),
        ({"seed": -1}, "seed=-1"),
        ({"columns": ["id", "nope"]}, "no column 'nope'; the columns are"),
        ({"last": "keep"}, "'short', 'drop', 'pad' and 'wrap'"),
        ({"start": "slow"}, "'ramp'"),
        ({"refill_below": 1.5}, "refill_below=1.5"),
        ({"pool_rows": 900, "pool_bytes": 2000}, "pool_rows=900 does not fit"),
        ({"until": "never"}, "'all', 'first' and 'repeat'"),
        ({"batch_size": 5000, "last": "drop"}, "fewer than global_batch_size=5000"),
        ({"output": "jax"}, "output='jax'"),
        ({"prefetch": 0}, "prefetch=0"),
    ],
)
def test_a_wrong_argument_says_its_name_value_and_what_is_allowed(
    line: Running, wish: dict[str, object], text: str
) -> None:
    with penstock.connect(line.target) as client, pytest.raises(penstock.InvalidRequest) as caught:
        first_batch(client, **wish)
    assert text in str(caught.value)


def test_mixtures_that_do_not_fit_together_name_dataset_and_column(serve: Serve, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"id": [1], "x": ["one"], "y": [2]}), other / "0.parquet")
    server = serve(datafiles.parquet(tmp_path / "first", 1, 10), other)
    with penstock.connect(server.target) as client:
        with pytest.raises(penstock.InvalidRequest, match="'other' has it as string"):
            first_batch(client, ["first", "other"])
        with pytest.raises(penstock.InvalidRequest, match="named 2 times"):
            first_batch(client, ["first", "first"])
        with pytest.raises(penstock.InvalidRequest, match="at least one source must have a share"):
            first_batch(client, {"first": 0.0})


def test_a_malformed_line_fails_at_its_step_with_file_line_and_reason(serve: Serve, tmp_path: Path) -> None:
    folder = datafiles.jsonl(tmp_path / "lines", 1, 300)
    lines = (folder / "0000.jsonl").read_text().splitlines()
    lines[204] = '{"id": 204, "x": '
    (folder / "0000.jsonl").write_text("\n".join(lines) + "\n")
    server = serve(folder)
    with penstock.connect(server.target) as client:
        for rank in range(2):
            stream = client.stream(
                "lines", batch_size=5, output="numpy", shuffle=False, rank=rank, world_size=2, name=f"r{rank}"
            )
            steps = 0
            with pytest.raises(penstock.DataError) as caught:  # noqa: PT012 - how far the loop gets is the point
                for _ in stream:
                    steps += 1
            # On every rank alike: the steps before the bad row came, the step that holds it did not.
            assert steps == 20
            assert "0000.jsonl" in str(caught.value)
            assert "line 205" in str(caught.value)
        assert server.metric("penstock_errors_total", code="DataError") == 2
        # The server and other streams live on.
        assert first_batch(client, "lines") is not None


def test_a_file_that_changed_since_it_was_registered_is_refused(line: Running, tmp_path: Path) -> None:
    datafiles.parquet(tmp_path / "titanic", 1, 400)
    with penstock.connect(line.target) as client, pytest.raises(penstock.SourceChanged, match=r"0000\.parquet"):
        first_batch(client)


def test_no_server_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.standing.CONNECT_TIMEOUT", 0.5)
    with penstock.connect("127.0.0.1:9") as client:
        with pytest.raises(penstock.ServerUnavailable, match=r"penstock serve PATH --grpc 127\.0\.0\.1:9"):
            first_batch(client)
        with pytest.raises(penstock.ServerUnavailable, match=r"penstock serve PATH --grpc 127\.0\.0\.1:9"):
            client.datasets()


def test_a_server_that_answered_once_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("penstock.standing.CONNECT_TIMEOUT", 0.2)
    data = datafiles.parquet(tmp_path / "rows", 1, 100)
    with Running((str(data),), tmp_path / "server") as server, penstock.connect(server.target) as client:
        stream = client.stream("rows", batch_size=10, output="numpy")  # asks the server for nothing yet
        client.datasets()
        server.kill()
        with concurrent.futures.ThreadPoolExecutor(1) as trainer:
            first = trainer.submit(next, iter(stream))
            assert concurrent.futures.wait([first], 1.0).not_done  # five times as long as it looks for a new address
            server.start()
            assert len(first.result(30)["id"]) == 10
        stream.close()


@pytest.mark.parametrize("token", ["secret\n", "schlüssel"])
def test_a_token_that_cannot_be_sent_is_refused_at_once_and_not_shown(token: str) -> None:
    with pytest.raises(penstock.InvalidRequest, match=r"token\.strip\(\)") as refused:
        penstock.connect("127.0.0.1:9", token=token)
    assert token.strip() not in str(refused.value)


def test_another_kind_of_server_is_recognised(line: Running) -> None:
    with penstock.connect(line.http, job="x") as client, pytest.raises(penstock.PenstockError, match=line.http):
        client.datasets()


def test_another_protocol_version_is_refused_with_both_numbers(line: Running) -> None:
    with grpc.insecure_channel(line.target) as channel:
        stream = channel.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        (answer,) = list(stream(iter([pb.ClientMessage(open=pb.Open(protocol=99))])))
        assert answer.error.code == "ProtocolMismatch"
        assert "protocol 99" in answer.error.message
        assert "speaks 1" in answer.error.message
        (answer,) = list(stream(iter([pb.ClientMessage(heartbeat=pb.Heartbeat())])))
        assert "first message of a stream must be Open" in answer.error.message


def test_a_state_of_another_stream_is_refused_with_what_differs(line: Running) -> None:
    with penstock.connect(line.target) as client:
        stream = client.stream("titanic", batch_size=8, output="numpy", seed=1)
        for _ in zip(range(3), stream, strict=False):
            pass
        state = stream.state_dict()
        other = client.stream("titanic", batch_size=8, output="numpy", seed=2, shuffle=False)
        other.load_state_dict(state)
        with pytest.raises(penstock.CursorMismatch) as caught:
            next(iter(other))
        assert "seed (cursor 1, now 2)" in str(caught.value)
        assert "order" in str(caught.value)
        assert "versions" not in str(caught.value)
        state["cursor"]["digest"] = "00000000deadbeef"
        stream.load_state_dict(state)
        with pytest.raises(penstock.OrderChanged, match="deadbeef"):
            next(iter(stream))
        for wrong in ({}, {"penstock": 1}, {"penstock": 1, "epoch": 0, "cursor": {"v": 7}}):
            with pytest.raises(penstock.InvalidRequest, match="state"):
                stream.load_state_dict(wrong)


def test_too_many_sessions_are_refused_with_the_limit(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "a", 1, 10), "--max-sessions", 1)
    with penstock.connect(server.target) as client:
        kept = client.stream("a", batch_size=2, output="numpy")
        next(iter(kept))
        with pytest.raises(penstock.ResourceExhausted, match="--max-sessions"):
            first_batch(client, "a", reconnect_timeout=0.3)


# -- Ctrl-C ----------------------------------------------------------------------------------------------------------

WAITING = """
import signal
import penstock
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
client = penstock.connect({target!r})
stream = client.stream("titanic", batch_size=8, output="numpy")
for batch in stream:
    print("reading", flush=True)
    break
{wait}
"""


@pytest.mark.parametrize("wait", ["input()", "while True:\n    for batch in stream:\n        pass"])
def test_ctrl_c_ends_a_trainer_at_once(line: Running, wait: str) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(target=line.target, wait=wait)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "reading\n"
    began = time.monotonic()
    trainer.send_signal(signal.SIGINT)
    _, stderr = trainer.communicate(timeout=20)
    assert time.monotonic() - began < 15
    assert "KeyboardInterrupt" in stderr
    assert trainer.returncode != 0


def test_ctrl_c_ends_the_server_cleanly_and_clients_are_told(line: Running) -> None:
    with penstock.connect(line.target) as client:
        stream = client.stream("titanic", batch_size=8, output="numpy", prefetch=4, reconnect_timeout=0.5)
        iterator = iter(stream)
        next(iterator)
        assert line.stop(signal.SIGINT) == 0
        with pytest.raises(penstock.RetryableError, match=r"for now|no connection"):
            for _ in iterator:
                pass
    assert "Traceback" not in line.log.read_text()


def test_the_server_leaves_nothing_behind(line: Running, tmp_path: Path) -> None:
    with penstock.connect(line.target) as client:
        first_batch(client)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    before = {p.name for p in shared.iterdir()} if shared.is_dir() else set()
    assert line.stop() == 0
    after = {p.name for p in shared.iterdir()} if shared.is_dir() else set()
    assert not {name for name in after - before if "penstock" in name and str(line.process.pid) in name}
    assert not list((tmp_path / "server" / "store").rglob("*.tmp*"))
    assert json.loads((tmp_path / "server" / "state" / "server.lock").read_text())["pid"] == line.process.pid
