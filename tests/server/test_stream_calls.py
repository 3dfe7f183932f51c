"""Calls of a stream beyond the loop: sizes that change, seeds drawn, rows looked at, rates, mixtures that end."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

import penstock
from penstock.link import Link
from tests import datafiles
from tests.running import OVER, Running


@pytest.fixture(scope="module", params=list(OVER))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("calls")
    data = [
        datafiles.parquet(folder / "rows", shards=4, rows=250),
        datafiles.parquet(folder / "more", shards=1, rows=300, first=10_000),
    ]
    with Running(tuple(map(str, data)), folder / "server", OVER[request.param]) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def test_get_batch_of_another_size_advances_by_that_many_rows(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=10, output="numpy") as stream:
        whole = ids(stream)
        stream.reset()
        got = [stream.get_batch(n)["id"].tolist() for n in (None, 7, 7, 100, None)]
        assert [len(g) for g in got] == [10, 7, 7, 100, 10]
        assert [i for g in got for i in g] == whole[:134]
        state = stream.state_dict()
        assert [int(i) for b in stream.resume() for i in b["id"]] == whole[134:]
        stream.load_state_dict(state)
        assert ids(stream) == whole[134:]
        with pytest.raises(penstock.InvalidRequest, match="n=0"):
            stream.get_batch(0)


def test_ranks_that_ask_for_different_sizes_get_an_error(client: penstock.Client) -> None:
    ranks = [
        client.stream("rows", batch_size=10, output="numpy", rank=r, world_size=2, name="pair", reconnect_timeout=0.3)
        for r in range(2)
    ]
    together = [rank.get_batch()["id"].tolist() for rank in ranks]
    assert all(len(part) == 10 for part in together)
    assert len(ranks[0].get_batch(32)["id"]) == 32
    with pytest.raises(penstock.RanksDisagree, match=r"rank 1 asks for 96, rank 0 for 64"):
        ranks[1].get_batch(48)
    assert len(ranks[1].get_batch(32)["id"]) == 32


def test_a_seed_that_the_server_draws_is_one_for_the_job_and_survives_it(server: Running) -> None:
    with penstock.connect(server.target, job="drawn") as client:
        ranks = [
            client.stream("rows", batch_size=10, seed=None, output="numpy", rank=r, world_size=2, name="s")
            for r in range(2)
        ]
        assert ranks[0].seed == ranks[1].seed
        assert sorted(ids(ranks[0]) + ids(ranks[1])) == list(range(1000))
        seed, state = ranks[0].seed, ranks[0].state_dict()
    with penstock.connect(server.target, job="another") as client:
        other = client.stream("rows", batch_size=10, seed=None, output="numpy", name="s")
        assert other.seed != seed
        resumed = client.stream("rows", batch_size=10, seed=None, output="numpy", name="t")
        resumed.load_state_dict(state)
        next(iter(resumed))
        assert resumed.state_dict()["cursor"]["seed"] == seed
    assert f"seed {seed} drawn" in server.log.read_text()
    with penstock.connect(server.target, job="drawn") as client:
        assert client.stream("rows", batch_size=10, seed=None, output="numpy", name="s").seed == seed


def test_without_reshuffling_all_epochs_have_one_order(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=50, output="numpy", reshuffle=False) as stream:
        first = ids(stream)
        assert ids(stream) == first != sorted(first)


def test_rows_are_dicts_of_what_each_column_has(client: penstock.Client) -> None:
    for output in ("torch", "numpy", "mlx", "arrow"):
        with client.stream("rows", batch_size=50, output=output) as stream:
            found = list(stream.rows())
            assert len(found) == 1000
            assert set(found[0]) == {"id", "x", "y"}
            assert all(float(row["x"]) == float(row["id"]) / 2 for row in found)


@pytest.mark.parametrize("shuffle", [True, False])
def test_max_rows_ends_the_epoch_early_and_counts_what_it_left(client: penstock.Client, shuffle: bool) -> None:
    with client.stream("rows", batch_size=30, output="numpy", max_rows=100, shuffle=shuffle) as stream:
        assert stream.get_num_batches() == len(stream) == 4
        assert stream.num_rows == 100
        found = ids(stream)
        assert len(set(found)) == 100
        assert stream.profile()["unread_rows"] in (0, 900)
        assert len(list(stream.get_iterator())) == 4


def test_row_ids_say_where_each_row_comes_from(client: penstock.Client) -> None:
    with client.stream(["rows", "more"], batch_size=64, output="numpy", row_ids=True) as stream:
        assert [s.split("@")[0] for s in stream.sources] == ["rows", "more"]
        for batch in stream:
            assert set(batch) == {"id", "x", "y"}
            meta = batch.metadata
            assert np.array_equal(batch["id"], meta.ids + meta.source * 10_000)


def test_row_ids_of_record_batches_are_columns(client: penstock.Client) -> None:
    with client.stream(["rows", "more"], batch_size=64, output="arrow", row_ids=True) as stream:
        for batch in stream:
            assert batch.schema.names == ["id", "x", "y", "__source__", "__row__"]
            assert np.array_equal(batch["id"], batch["__row__"].to_numpy() + batch["__source__"].to_numpy() * 10_000)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"columns": "id"}, r"columns=\['id'\]"),
        ({"columns": []}, "no column would be left"),
        ({"replica": -1}, "replica=-1"),
        ({"reconnect_timeout": -1}, "reconnect_timeout=-1"),
        ({"nulls": "keep"}, "'error' and 'mask'"),
        ({"output": "jax"}, "'torch', 'mlx', 'numpy' and 'arrow'"),
        ({"last": "keep"}, "'short', 'drop', 'pad' and 'wrap'"),
    ],
)
def test_what_can_be_judged_here_is_refused_without_asking_the_server(wish: dict[str, object], says: str) -> None:
    with penstock.connect("127.0.0.1:9") as nobody, pytest.raises(penstock.InvalidRequest, match=says):
        nobody.stream("rows", batch_size=1, **wish)  # type: ignore[arg-type]


def test_a_rate_is_kept_and_a_missed_target_is_said(server: Running, client: penstock.Client) -> None:
    with client.stream("rows", batch_size=50, output="numpy", max_rows_per_s=2000, target_rows_per_s=1e9) as stream:
        began = time.monotonic()
        assert len(ids(stream)) == 1000
        assert time.monotonic() - began >= 950 / 2000
        profile = stream.profile()
        assert float(profile["paced_s"]) > 0.3
        assert "the target of 1,000,000,000 rows/s is missed" in str(profile)
    assert "penstock_sessions_below_target 0.0" in server.get("/metrics")


def test_an_interrupt_while_a_step_is_held_back_loses_no_step(
    client: penstock.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(_seconds: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with client.stream("rows", batch_size=10, output="numpy", max_rows_per_s=1000) as stream:
        whole = [stream.get_batch().metadata.step]
        for _ in range(3):
            monkeypatch.setattr(Link, "sleep", staticmethod(press_ctrl_c))
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - a slow machine need not sleep before each step
                while True:
                    whole.append(stream.get_batch().metadata.step)
            state = stream.state_dict()
            assert state["epoch"] * 100 + state["cursor"]["step"] == len(whole)
        whole.append(stream.get_batch().metadata.step)
        assert whole == [step % 100 for step in range(len(whole))]


@pytest.mark.parametrize(
    ("wish", "rows", "more"),
    [
        ({"until": "all"}, 1000, 300),
        ({"until": "first"}, 300, 300),
        ({"until": "repeat"}, 650, 650),
        ({"until": "repeat", "epoch_rows": 2000}, 1000, 1000),
        ({"until": "all", "max_rows": 100}, 50, 50),
    ],
)
def test_mixtures_end_as_they_were_told_to(
    server: Running, client: penstock.Client, wish: dict[str, object], rows: int, more: int
) -> None:
    with client.stream({"rows": 1, "more": 1}, batch_size=50, output="numpy", **wish) as stream:  # type: ignore[arg-type]
        found = np.array(ids(stream))
        assert (int((found < 10_000).sum()), int((found >= 10_000).sum())) == (rows, more)
        counts = np.unique(found, return_counts=True)[1]
        assert counts.max() == (4 if more == 1000 else 3 if more == 650 else 1)
        if wish["until"] == "repeat":
            assert f"more is read {more / 300:.2f} times in an epoch" in server.log.read_text()
        if wish["until"] == "first":
            assert stream.profile()["unread_rows"] == 700


def test_without_weights_sources_are_measured_in_rows_shards_or_bytes(client: penstock.Client) -> None:
    shares = {}
    for by in ("rows", "shards", "bytes"):
        with client.stream(["rows", "more"], batch_size=100, output="numpy", weight_by=by, until="first") as stream:
            found = np.array(ids(stream))
            shares[by] = float((found < 10_000).mean())
    assert shares["rows"] == pytest.approx(1000 / 1300, abs=0.01)
    assert shares["shards"] == pytest.approx(4 / 5, abs=0.01)
    assert 0.7 < shares["bytes"] < 0.9
    with pytest.raises(penstock.InvalidRequest, match="give one of them"):
        client.stream({"rows": 1.0}, batch_size=1, output="numpy", weight_by="bytes").get_batch()
    with pytest.raises(penstock.InvalidRequest, match="'rows', 'shards' and 'bytes'"):
        client.stream("rows", batch_size=1, output="numpy", weight_by="files").get_batch()  # type: ignore[arg-type]
    with pytest.raises(penstock.InvalidRequest, match="max_rows=5"):
        client.stream("rows", batch_size=1, output="numpy", epoch_rows=5)


def test_the_pool_says_its_size_and_takes_a_refill_in_rows(server: Running, client: penstock.Client) -> None:
    with client.stream("rows", batch_size=10, output="numpy", pool_rows=400, refill_below=300) as stream:
        assert dict(stream.plan) == {"pool_rows": 400, "drain": 100, "cycles": 16, "start": "ramp"}
        assert sorted(ids(stream)) == list(range(1000))
        assert '"pool_rows":400' in server.get("/api/v1/sessions").replace(" ", "")
        assert stream.state_dict()["cursor"]["plan"]["drain"] == 100
    log = server.log.read_text()
    assert "pool of 400 rows, 100 leave at a time" in log
    assert "chunk set 0 enters the pool: 1 rows of rows from 000" in log
    with client.stream("rows", batch_size=10, output="numpy", pool_bytes=5000) as stream:
        assert stream.plan["pool_rows"] < 1000


def test_a_batch_taken_after_set_epoch_is_not_forgotten_without_a_word(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=100, output="numpy") as stream:
        stream.set_epoch(0)
        stream.get_batch()
        with pytest.warns(UserWarning, match="left at step 1"):
            assert len(list(stream)) == 10
