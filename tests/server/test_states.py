"""States: taken anywhere, kept anyhow, loaded on any world size, and forced upon a stream they were not made for."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("states")
    data = [
        datafiles.parquet(folder / "rows", shards=4, rows=130),
        datafiles.parquet(folder / "more", shards=2, rows=100, first=10_000),
    ]
    with Running(tuple(map(str, data)), folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def opened(client: penstock.Client, datasets: Any = ("rows", "more"), **more: Any) -> penstock.Stream:
    wish: dict[str, Any] = {"global_batch_size": 24, "output": "numpy", "seed": 3, "pool_rows": 200, **more}
    return client.stream(datasets if isinstance(datasets, (str, dict)) else list(datasets), **wish)


def by_json(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(state))
    return found


def by_torch(state: dict[str, Any]) -> dict[str, Any]:
    kept = io.BytesIO()
    torch.save({"model": torch.zeros(2), "stream": state}, kept)
    kept.seek(0)
    found: dict[str, Any] = torch.load(kept, weights_only=True)["stream"]
    return found


def test_a_state_of_any_place_gives_the_same_steps_on_any_world(client: penstock.Client) -> None:
    """Before anything, at step 0, within segments, at the last step, between epochs; the very same global steps."""
    whole = opened(client)
    states: list[tuple[int, dict[str, Any]]] = [(0, whole.state_dict())]
    assert len(whole) == 30  # connects
    states.append((0, whole.state_dict()))
    steps: list[list[int]] = []
    for _ in range(2):
        for batch in whole:
            steps.append(batch["id"].tolist())
            states.append((len(steps), whole.state_dict()))
        states.append((len(steps), whole.state_dict()))
    assert len(steps) == 60
    segments = {state["cursor"]["segment"] for _, state in states if state["cursor"]}
    assert len(segments) > 10
    assert all(len(json.dumps(state)) < 4096 for _, state in states)
    edges = {0, 29, 30, 31, 59, 60}
    for number, (at, state) in enumerate(pair for pair in states if pair[0] in edges or pair[0] % 5 == 2):
        kept = (by_json, by_torch)[number % 2](state)
        assert kept == state
        world = (1, 2, 3, 4)[number % 4]
        # Eleven steps on, across the end of the epoch where it comes: as the uninterrupted stream gave them.
        expected = steps[at : at + 11]
        found: list[list[list[int]]] = []
        for rank in range(world):
            with opened(client, rank=rank, world_size=world, prefetch=16, name=f"{number}") as stream:
                stream.load_state_dict(kept)
                found.append([stream.get_batch()["id"].tolist() for _ in expected])
        assert [[row for part in step for row in part] for step in zip(*found, strict=True)] == expected


def test_a_state_may_be_read_by_people(client: penstock.Client) -> None:
    stream = opened(client)
    for _ in zip(range(5), stream, strict=False):
        pass
    cursor = stream.state_dict()["cursor"]
    assert (cursor["v"], cursor["epoch"], cursor["step"], cursor["global_batch"], cursor["seed"]) == (1, 0, 5, 24, 3)
    assert cursor["plan"] == dict(stream.plan)
    assert set(cursor["fingerprint"]) == {"sources", "versions", "weights", "transforms", "pool", "end", "order"}
    # It says what was received, not what was sent ahead: all of the epoch is here by now.
    assert cursor["step"] == 5
    stream.close()
    assert stream.state_dict()["cursor"] == cursor


@pytest.mark.parametrize(
    "other",
    [
        {"global_batch_size": 7},
        {"rank": 1, "world_size": 2},
        {"last": "pad"},
        {"columns": ["y", "id"]},
        {"output": "torch"},
        {"row_ids": True},
        {"prefetch": 1},
        {"pool_rows": 50},  # the state brings its own
        {"target_rows_per_s": 5.0},
    ],
)
def test_what_is_no_part_of_the_order_may_differ(client: penstock.Client, other: dict[str, Any]) -> None:
    stream = opened(client)
    for _ in zip(range(7), stream, strict=False):
        pass
    state = stream.state_dict()
    rest = [row for batch in stream.resume() for row in batch["id"].tolist()]
    changed = opened(client, **other)
    changed.load_state_dict(state)
    first = next(iter(changed))["id"].tolist()
    size = other.get("global_batch_size", 24) // other.get("world_size", 1)
    assert first == rest[size * other.get("rank", 0) :][:size]


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        ({"datasets": {"rows": 3, "more": 1}, "until": "first"}, ["end", "weights"]),
        ({"until": "repeat"}, ["end"]),
        ({"rows": [{"filter": "y > 2"}]}, ["transforms"]),
        ({"shuffle": False}, ["order"]),
        ({"reshuffle": False}, ["order"]),
        ({"seed": 4}, ["seed"]),
        ({"datasets": "rows"}, ["sources", "versions", "weights"]),
    ],
)
def test_every_field_that_differs_is_named_and_force_goes_on_there(
    client: penstock.Client, other: dict[str, Any], fields: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    stream = opened(client)
    for _ in zip(range(7), stream, strict=False):
        pass
    state = stream.state_dict()
    changed = opened(client, **other)
    changed.load_state_dict(state)
    with pytest.raises(penstock.CursorMismatch) as caught:
        next(iter(changed))
    text = str(caught.value)
    differing = text.partition("what differs: ")[2].partition(". Open the stream")[0]
    assert [part.split()[0] for part in differing.split("; ")] == fields
    assert all("(cursor " in part and ", now " in part for part in differing.split("; "))
    assert "force=True" in text

    changed.load_state_dict(state, force=True)
    first = next(iter(changed))
    assert (first.metadata.epoch, first.metadata.step) == (0, 7)
    assert "a state of another stream was forced upon this one" in caplog.text
    assert fields[0] in caplog.text
    # From now on it is a state of this stream, and is checked again.
    mine = changed.state_dict()
    again = opened(client, **other)
    again.load_state_dict(mine)
    assert next(iter(again)).metadata.step == 8
    mine["cursor"]["digest"] = "00000000deadbeef"
    again.load_state_dict(mine)
    with pytest.raises(penstock.OrderChanged, match="deadbeef"):
        next(iter(again))
    again.load_state_dict(mine, force=True)
    assert next(iter(again)).metadata.step == 8
    stream.load_state_dict(changed.state_dict())
    with pytest.raises(penstock.CursorMismatch):
        next(iter(stream))


def test_a_forced_state_lives_through_a_lost_connection(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=130))
    with penstock.connect(server.target) as client:
        stream = opened(client, "rows")
        for _ in zip(range(7), stream, strict=False):
            pass
        state = stream.state_dict()
        changed = opened(client, "rows", seed=9, prefetch=2)
        changed.load_state_dict(state, force=True)
        expected = opened(client, "rows", seed=9)
        expected.load_state_dict(state, force=True)
        rest = [batch["id"].tolist() for batch in expected]
        found = []
        for number, batch in enumerate(changed):
            found.append(batch["id"].tolist())
            if number == 1:
                server.kill()
                server.start()
        assert found == rest


def test_a_newer_version_is_refused_by_its_name_and_forced(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "rows", shards=4, rows=130)
    server = serve(data)
    with penstock.connect(server.target) as client:
        stream = opened(client, "rows")
        for _ in zip(range(20), stream, strict=False):
            pass
        state, old = stream.state_dict(), client.get("rows").version
        stream.close()
        datafiles.parquet(tmp_path / "added", shards=1, rows=50, first=50_000)
        shutil.copy(tmp_path / "added" / "0000.parquet", data / "0004.parquet")
        new = client.register("rows", str(data)).version
        assert old != new
        grown = opened(client, "rows")
        grown.load_state_dict(state)
        with pytest.raises(penstock.CursorMismatch, match=rf"versions \(cursor \w+, now \w+: rows@{new}\)"):
            next(iter(grown))
        grown.load_state_dict(state, force=True)
        assert next(iter(grown)).metadata.step == 20
        # A plan that has no such segment: nothing to go on at.
        for name in (1, 2, 3, 4):
            (data / f"000{name}.parquet").unlink()
        client.register("rows", str(data))
        shrunk = opened(client, "rows")
        late = json.loads(json.dumps(state))
        late["cursor"]["segment"] = 10_000
        shrunk.load_state_dict(late, force=True)
        with pytest.raises(penstock.InvalidRequest, match="the state is in segment 10000, but an epoch"):
            next(iter(shrunk))


def test_a_forced_position_beyond_its_segment_begins_at_the_next(client: penstock.Client) -> None:
    stream = opened(client, "rows")
    for _ in zip(range(7), stream, strict=False):
        pass
    state = stream.state_dict()
    state["cursor"]["taken"] = 10**6
    forced = opened(client, "rows", seed=4)
    forced.load_state_dict(state, force=True)
    found = [batch["id"].tolist() for batch in forced]
    behind = opened(client, "rows", seed=4)
    state["cursor"] |= {"segment": state["cursor"]["segment"] + 1, "taken": 0}
    behind.load_state_dict(state, force=True)
    assert found == [batch["id"].tolist() for batch in behind]
    # In the last segment: the epoch ends there.
    state["cursor"] |= {"segment": 10**9}
    forced.load_state_dict(state, force=True)
    with pytest.raises(penstock.InvalidRequest, match="but an epoch of this stream has") as error:
        next(iter(forced))
    last = int(str(error.value).split()[-1]) - 1
    state["cursor"] |= {"segment": last, "taken": 10**6}
    forced.load_state_dict(state, force=True)
    assert [batch["id"].tolist() for batch in forced] == []
    assert forced.epoch == 1
