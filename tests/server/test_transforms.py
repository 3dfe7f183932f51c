"""Row transforms through the real server: filters that move no other row, Python in workers, purity that is checked."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve
from tests.running import DidNotStart

MODULE = "tests.transform.rows_module"


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def test_a_filter_leaves_rows_out_and_moves_no_other(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 6, 500), "--chunk-rows", 300)
    with penstock.connect(server.target) as client:
        for wish in ({"pool_rows": 800}, {"shuffle": False}, {}):
            whole = ids(client.stream("rows", batch_size=50, output="numpy", seed=4, **wish))
            rows = [{"filter": "y in (1, 2) and id != 400"}]
            stream = client.stream("rows", batch_size=50, output="numpy", seed=4, rows=rows, row_ids=True, **wish)
            found, kept = [], [i for i in whole if i % 7 in (1, 2) and i != 400]
            states = []
            for batch in stream:
                assert batch["id"].tolist() == batch.metadata.ids.tolist()
                found += batch["id"].tolist()
                states.append((len(found), stream.state_dict()))
            assert found == kept
            assert len(ids(stream)) == len(kept)
            with pytest.raises(TypeError, match="filters"):
                len(stream)
            with pytest.raises(TypeError, match="filters"):
                stream.get_num_batches()
            done, state = states[len(states) // 2]
            stream.load_state_dict(state)
            assert ids(stream) == kept[done:]


def test_ranks_have_equal_steps_though_rows_are_left_out(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 3, 500))
    with penstock.connect(server.target) as client:
        ranks = [
            client.stream(
                "rows", batch_size=8, output="numpy", rows=[{"filter": "y == 3"}], rank=r, world_size=3, pool_rows=400
            )
            for r in range(3)
        ]
        parts = [[b["id"].tolist() for b in rank] for rank in ranks]
        assert len({len(part) for part in parts}) == 1
        assert sorted(i for part in parts for step in part for i in step) == [i for i in range(1500) if i % 7 == 3]


def test_select_and_cast_decide_what_arrives(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.csv(tmp_path / "rows", 1, 100))
    rows = [{"select": {"label": "y", "x": "x"}}, {"cast": {"label": "int8", "x": "float32"}}]
    with penstock.connect(server.target) as client:
        batch = client.stream("rows", batch_size=10, rows=rows).get_batch()
        assert {name: str(t.dtype) for name, t in batch.items()} == {"label": "torch.int8", "x": "torch.float32"}


@pytest.mark.parametrize("kind", ["auto", "threads"])
def test_python_runs_in_the_workers_and_only_what_is_allowed(serve: Serve, tmp_path: Path, kind: str) -> None:
    data = datafiles.parquet(tmp_path / "rows", 2, 300)
    server = serve(data, "--python-modules", MODULE, "--worker-kind", kind)
    with penstock.connect(server.target) as client:
        rows: list[dict[str, object]] = [
            {"python": f"{MODULE}:keep_even"},
            {"python": {"function": f"{MODULE}:double", "columns": {"twice": "int32"}}},
        ]
        stream = client.stream("rows", batch_size=20, output="numpy", rows=rows)
        for batch in stream:
            assert (batch["twice"] == 2 * batch["id"]).all()
        assert sorted(ids(stream)) == list(range(0, 600, 2))
        with pytest.raises(penstock.InvalidRequest, match="--python-modules os"):
            client.stream("rows", batch_size=20, output="numpy", rows=[{"python": "os:system"}]).get_batch()
        failing = client.stream(
            "rows", batch_size=20, output="numpy", shuffle=False, rows=[{"python": f"{MODULE}:fails_at_seven"}]
        )
        with pytest.raises(penstock.DataError, match=r"0000\.parquet, row 7: .*seven"):
            failing.get_batch()


def test_a_transform_that_uses_the_clock_is_found_out(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "rows", 1, 400)
    # Nothing is kept on disk: the chunk is made again when the stream is opened again.
    server = serve(data, "--python-modules", MODULE, "--store-bytes", 0)
    rows = [{"python": f"{MODULE}:uses_the_clock"}]
    with penstock.connect(server.target) as client:
        with client.stream("rows", batch_size=20, output="numpy", rows=rows) as stream:
            stream.get_batch()
        deadline = time.monotonic() + 10
        with pytest.raises(penstock.OrderChanged, match=r"0000\.parquet"):  # noqa: PT012
            while time.monotonic() < deadline:  # the server hears of the closed stream a moment later
                with client.stream("rows", batch_size=20, output="numpy", rows=rows) as stream:
                    stream.get_batch()


def test_filters_that_leave_nothing_say_so(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 100))
    with penstock.connect(server.target) as client:
        stream = client.stream("rows", batch_size=20, output="numpy", rows=[{"filter": "id < 0"}])
        with pytest.raises(penstock.InvalidRequest, match=r"all of them are left out by filters$"):
            stream.get_batch()
        # Where every row is a bad one, no filter is blamed.
        client.register("large", str(datafiles.parquet(tmp_path / "large", 1, 100, first=1000)))
        rows: list[dict[str, object]] = [{"cast": {"id": "int8"}}, {"filter": "id > 0"}]
        stream = client.stream("large", batch_size=20, output="numpy", rows=rows, on_error="skip")
        with pytest.raises(
            penstock.InvalidRequest, match=r"all of them are left out by on_error='skip' \(100 bad rows"
        ):
            stream.get_batch()


def test_a_state_of_other_transforms_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 100))
    with penstock.connect(server.target) as client:
        stream = client.stream("rows", batch_size=20, output="numpy", rows=[{"filter": "id > 3"}])
        stream.get_batch()
        other = client.stream("rows", batch_size=20, output="numpy", rows=[{"filter": "id > 4"}])
        other.load_state_dict(stream.state_dict())
        with pytest.raises(penstock.CursorMismatch, match="transforms"):
            other.get_batch()


def test_a_spec_names_the_transforms_of_every_stream(serve: Serve, tmp_path: Path) -> None:
    datafiles.parquet(tmp_path / "rows", 2, 100)
    spec = tmp_path / "few.penstock.yaml"
    spec.write_text("path: rows\ntransforms:\n  - filter: y == 3\n  - cast: {y: int8}\n")
    server = serve(spec)
    with penstock.connect(server.target) as client:
        stream = client.stream("few", batch_size=10, output="numpy")
        assert sorted(ids(stream)) == [i for i in range(200) if i % 7 == 3]
        more = client.stream("few", batch_size=10, output="numpy", rows=[{"filter": "id < 50"}])
        batches = list(more)
        assert sorted(int(i) for b in batches for i in b["id"]) == [i for i in range(50) if i % 7 == 3]
        assert str(batches[0]["y"].dtype) == "int8"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("transfroms:\n  - filter: y == 3\n", "did you mean transforms"),
        ("transforms:\n  - fliter: y == 3\n", "did you mean 'filter'"),
        ("transforms:\n  - python: os:system\n", "--python-modules os"),
    ],
)
def test_a_spec_that_is_written_wrongly_ends_the_start(serve: Serve, tmp_path: Path, lines: str, says: str) -> None:
    datafiles.parquet(tmp_path / "rows", 1, 10)
    spec = tmp_path / "few.penstock.yaml"
    spec.write_text(f"path: rows\n{lines}")
    with pytest.raises(DidNotStart) as caught:
        serve(spec)
    assert says in caught.value.stderr


def test_a_row_that_a_filter_cannot_be_computed_for_is_a_bad_row(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 2, 300), "--chunk-rows", 100)
    rows = [{"filter": "100 / (id - 77) != 1000"}]
    good = [i for i in range(600) if i != 77]
    with penstock.connect(server.target) as client:

        def opened(on_error: Any) -> penstock.Stream:
            return client.stream("rows", batch_size=10, output="numpy", rows=rows, on_error=on_error, pool_rows=100)

        with pytest.raises(penstock.DataError, match=r"0000.parquet, row 77: filter .*: divide by zero.*step \d+"):
            ids(opened("fail"))
        assert sorted(ids(opened("skip"))) == sorted(ids(opened("quarantine"))) == good
        assert sorted(ids(opened("substitute"))) == sorted([*good, 76])


def test_many_bad_rows_are_left_out_and_the_first_are_told(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 3000))
    with penstock.connect(server.target, job="many") as client:
        rows: list[dict[str, object]] = [{"filter": "100 / (id - id / 3 * 3) >= 0"}]
        stream = client.stream("rows", batch_size=10, output="numpy", rows=rows, on_error="quarantine", shuffle=False)
        assert ids(stream) == [i for i in range(3000) if i % 3]
    bad = server.get("/api/v1/bad-rows?job=many&most=2000")
    found = sorted(json.loads(bad)["rows"], key=lambda line: line["row"])
    assert [line["row"] for line in found] == list(range(0, 3000, 3))
    assert "divide by zero" in found[0]["reason"]
    assert f"row {255 * 3}: filter" in found[-1]["reason"]


@pytest.mark.parametrize("kind", ["auto", "threads"])
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_misspelt_function_is_told_with_the_nearest(serve: Serve, tmp_path: Path, kind: str, on_error: Any) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 50), "--python-modules", MODULE, "--worker-kind", kind)
    with (
        penstock.connect(server.target) as client,
        pytest.raises(penstock.InvalidRequest, match=r"row transform 0: python: .* did you mean keep_even"),
    ):
        client.stream("rows", batch_size=5, rows=[{"python": f"{MODULE}:keep_evn"}], on_error=on_error).get_batch()
