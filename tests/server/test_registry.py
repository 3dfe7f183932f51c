"""Datasets of a real server: by the client, over HTTP and on the command line."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.running import DidNotStart, Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("registry")
    data = datafiles.parquet(folder / "rows", shards=2, rows=50)
    with Running((str(data),), folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def cli(server: Running, *words: str, code: int = 0) -> Any:
    """What `penstock datasets` prints, as JSON if it was asked for."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK")}
    ended = subprocess.run(
        [sys.executable, "-m", "penstock_service", "datasets", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"PENSTOCK_HTTP": server.http},
    )
    assert ended.returncode == code, ended.stderr
    if code:
        return ended.stderr
    return json.loads(ended.stdout) if "--json" in words else ended.stdout


def http(server: Running, method: str, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.http}{path}", data, method=method)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  our own server
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ids(batches: Iterator[penstock.Batch] | penstock.Stream) -> list[int]:
    return sorted(int(i) for batch in batches for i in batch["id"])


def test_what_is_said_is_the_same_by_client_http_and_command_line(
    server: Running, client: penstock.Client, tmp_path: Path
) -> None:
    path = str(datafiles.csv(tmp_path / "said", 1, 30))
    made = client.register(
        *("said", path),
        description="thirty rows",
        task="regression",
        tags=["small"],
        metric="rmse",
        target="y",
        rows=30,
        features=2,
    )
    assert (made.task, made.metric, made.target, made.features) == ("regression", "rmse", ("y",), 2)
    assert client.get("said") == made
    over_http = http(server, "GET", "/api/v1/datasets/said")[1]
    assert {k: over_http[k] for k in ("task", "metric", "target", "features", "rows", "tags")} == {
        "task": "regression",
        "metric": "rmse",
        "target": ["y"],
        "features": 2,
        "rows": 30,
        "tags": ["small"],
    }
    words = ["--description", "thirty rows", "--task", "regression", "--tag", "small", "--metric", "rmse"]
    words += ["--target", "y", "--rows", "30", "--features", "2"]
    by_cli = cli(server, "register", f"said={path}", *words, "--json")
    assert by_cli == over_http
    assert cli(server, "search", "--task", "regression", "--json")["datasets"] == [over_http]
    assert [d.name for d in client.search(task="regression")] == ["said"]
    assert [d.name for d in client.search("THIRTY", tag="small")] == ["said"]
    assert client.list() == client.datasets() == client.search()
    again = client.register("said", path, tags="one", target="")
    assert (again.tags, again.target, again.features, again.task) == (("one",), (), 3, "regression")
    client.remove("said")


def test_wrong_declarations_are_refused_everywhere_in_the_same_words(
    server: Running, client: penstock.Client, tmp_path: Path
) -> None:
    path = str(datafiles.csv(tmp_path / "wrong", 1, 30))
    with pytest.raises(penstock.InvalidRequest) as error:
        client.register("wrong", path, rows=31, features=9)
    text = str(error.value)
    assert "rows: 31 declared, 30 found; features: 9 declared, 3 found" in text
    assert http(server, "POST", "/api/v1/datasets", {"path": path, "rows": 31, "features": 9}) == (
        400,
        {"code": "InvalidRequest", "message": text},
    )
    assert cli(server, "register", path, "--rows", "31", "--features", "9", code=1) == f"penstock: {text}\n"
    with pytest.raises(penstock.InvalidRequest, match=r"did you mean language-modelling\?"):
        client.register("wrong", path, task="language modelling")  # type: ignore[arg-type]
    with pytest.raises(penstock.InvalidRequest, match=r"did you mean sft\?"):
        client.search(task="SFT")  # type: ignore[arg-type]
    with pytest.raises(penstock.InvalidRequest, match=r"target 'z' is none of its 3 columns \(id, x, y\)"):
        client.register("wrong", path, target="z")
    with pytest.raises(penstock.InvalidRequest, match="features=-1: must be 0 or more"):
        client.register("wrong", path, features=-1)
    with pytest.raises(penstock.DatasetNotFound):
        client.get("wrong")


def test_versions_and_what_lies_between_them(server: Running, client: penstock.Client, tmp_path: Path) -> None:
    data = datafiles.csv(tmp_path / "grows", 3, 10)
    first = client.register("grows", str(data))
    (data / "0000.csv").unlink()
    datafiles.csv(tmp_path / "more", 1, 7)
    shutil.move(tmp_path / "more" / "0000.csv", data / "0001.csv")
    (data / "0007.csv").write_text("id,x,y\n1,1.0,1\n")
    second = client.register("grows", str(data))
    assert [d.version for d in client.versions("grows")] == [second.version, first.version]
    a, b = f"grows@{first.version}", f"grows@{second.version}"
    diff = client.diff(a, "grows")
    assert (diff.a, diff.b) == (a, b)
    assert [(s.path, s.rows_before, s.rows) for s in diff.added] == [("0007.csv", 0, 1)]
    assert [(s.path, s.rows_before, s.rows) for s in diff.gone] == [("0000.csv", 10, 0)]
    assert [(s.path, s.rows_before, s.rows) for s in diff.changed] == [("0001.csv", 10, 7)]
    assert diff.counts == {"added": 1, "gone": 1, "changed": 1, "same": 1}
    over_http = http(server, "GET", f"/api/v1/diff?a={a}&b={b}")[1]
    assert over_http["counts"] == diff.counts
    assert over_http["changed"][0]["bytes"] == (data / "0001.csv").stat().st_size
    assert cli(server, "diff", a, b, "--json") == over_http
    shown = cli(server, "diff", a, b)
    assert f"{a} to {b}: shards 1 added, 1 gone, 1 changed, 1 same" in shown
    assert [line.split()[:2] for line in shown.splitlines()[2:]] == [
        *(["added", "0007.csv"], ["gone", "0000.csv"], ["changed", "0001.csv"])
    ]
    versions = cli(server, "versions", "grows", "--json")["datasets"]
    assert versions == http(server, "GET", "/api/v1/datasets/grows/versions")[1]["datasets"]
    assert [d["version"] for d in versions] == [second.version, first.version]
    assert first.version in cli(server, "versions", "grows")
    for ask in (lambda: client.versions("growz"), lambda: client.diff("growz", "grows")):
        with pytest.raises(penstock.DatasetNotFound, match="Did you mean grows"):
            ask()
    # The first version's files are not there any more; what is new is told too, as it may be what is missing.
    with pytest.raises(penstock.SourceChanged) as error:
        next(iter(client.stream(a, batch_size=4)))
    text = str(error.value)
    assert text.startswith(f"2 of 3 files of {a} in {data} have changed: 0000.csv (gone), 0001.csv (")
    assert "1 new: 0007.csv. Put them back, or register grows again (penstock datasets register grows=" in text
    assert ids(client.stream(b, batch_size=4, output="numpy")) == sorted([*range(7), *range(20, 30), 1])


def test_a_dataset_in_use_is_removed_only_by_force_and_streams_run_on(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "used", shards=8, rows=500)
    server = serve(data, "--chunk-rows", 50, "--chunk-bytes", "64KiB", "--store-bytes", "64KiB")
    with penstock.connect(server.target) as client:
        version = client.get("used").version
        # A window of little, so that most is neither made nor sent when the dataset goes.
        with client.stream("used", batch_size=10, output="numpy", prefetch=2, prefetch_bytes=4096) as stream:
            seen = [next(iter(stream))]
            for name in ("used", f"used@{version[:6]}"):
                with pytest.raises(penstock.InvalidRequest) as error:
                    client.remove(name)
                assert str(error.value) == (
                    f"dataset {name!r} is in use: streams read used@{version}. End them first, or remove it with "
                    "force: they run on to their end, but cannot be opened again"
                )
            assert cli(server, "remove", "used", code=1).startswith("penstock: dataset 'used' is in use")
            assert http(server, "DELETE", "/api/v1/datasets/used")[0] == 400
            assert "removed used@" in cli(server, "remove", "used", "--force")
            assert client.list() == []
            assert list((server.folder / "state" / "manifests").iterdir()) == []
            while len(seen) < 400:
                seen.append(stream.get_batch())
            assert ids(iter(seen)) == list(range(4000))
            assert ids(iter(stream.get_batch() for _ in range(400))) == list(range(4000))  # another epoch
        assert len(list(data.iterdir())) == 8
        with pytest.raises(penstock.DatasetNotFound):
            next(iter(client.stream("used", batch_size=10)))


def test_another_version_of_a_dataset_in_use_may_go(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.csv(tmp_path / "d", 1, 10)
    server = serve(data)
    with penstock.connect(server.target) as client:
        old = client.get("d").version
        datafiles.csv(tmp_path / "d", 2, 10)
        client.register("d", str(data))
        with client.stream("d", batch_size=2, output="numpy") as stream:
            next(iter(stream))
            assert client.remove(f"d@{old}").version == old
            with pytest.raises(penstock.InvalidRequest, match="in use"):
                client.remove("d")


def test_a_folder_of_datasets_is_discovered_at_start_when_asked_and_from_time_to_time(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    datafiles.csv(folder / "a", 2, 10)
    datafiles.parquet(folder / "b", 1, 10)
    (folder / "b.penstock.yaml").write_text("task: binary\ntarget: y\nrows: 10\nfeatures: 2\n")
    (folder / "broken.parquet").write_text("no parquet")
    server = serve("--discover", folder, "--discover-every", "0.2")
    with penstock.connect(server.target) as client:
        assert [(d.name, d.task, d.target) for d in client.list()] == [("a", "", ()), ("b", "binary", ("y",))]
        assert "broken.parquet: refused: " in server.log.read_text()
        shutil.copytree(folder / "a", folder / "c")  # just now
        found = {child.name: child for child in client.discover()}
        assert {name: child.state for name, child in found.items()} == {
            "a": "unchanged",
            "b": "unchanged",
            "broken": "refused",
            "c": "new",
        }
        assert "broken.parquet" in found["broken"].reason
        status, over_http = http(server, "POST", "/api/v1/discover")
        assert status == 200
        assert over_http["folder"] == str(folder)
        assert cli(server, "discover", "--json") == over_http
        assert over_http["children"][0] == {
            "name": "a",
            "path": str(folder / "a"),
            "state": "unchanged",
            "reason": "",
            "version": client.get("a").version,
        }
        assert "broken  " in cli(server, "discover")
        shutil.copytree(folder / "a", folder / "later")
        for file in (folder / "later").iterdir():
            os.utime(file, (1, 1))  # not being written any more
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and "later" not in [d.name for d in client.list()]:
            time.sleep(0.05)
        assert client.get("later").rows == 20
        shutil.rmtree(folder / "a")
        (gone,) = [child for child in client.discover() if child.name == "a"]
        assert (gone.state, gone.reason) == ("gone", "its data is gone: put it back, or remove the dataset")
        assert client.get("a").rows == 20
        with pytest.raises(penstock.SourceChanged, match=r"2 of 2 files of a@.*0000\.csv \(gone\), 0001\.csv \(gone\)"):
            next(iter(client.stream("a", batch_size=2)))


def test_without_a_folder_of_datasets_discovering_says_how(server: Running, client: penstock.Client) -> None:
    text = "this server has no folder of datasets: start it with --discover DIR"
    with pytest.raises(penstock.InvalidRequest, match=text):
        client.discover()
    assert http(server, "POST", "/api/v1/discover") == (400, {"code": "InvalidRequest", "message": text})
    assert cli(server, "discover", code=1) == f"penstock: {text}\n"


def test_a_spec_is_served_by_its_name_beside_its_data_and_inside_it(serve: Serve, tmp_path: Path) -> None:
    datafiles.csv(tmp_path / "web", 1, 10)
    datafiles.csv(tmp_path / "rows", 1, 20)
    (tmp_path / "web.yaml").write_text("path: web\ndescription: pages\ntask: sft\ntags: text\nrows: 10\n")
    (tmp_path / "rows" / "any.penstock.yaml").write_text("name: inside\ntask: rl\n")
    server = serve(tmp_path / "web.yaml", tmp_path / "rows", f"again={tmp_path / 'web.yaml'}")
    with penstock.connect(server.target) as client:
        found = {d.name: (d.task, d.description, d.tags, d.rows) for d in client.list()}
        assert found == {
            "web": ("sft", "pages", ("text",), 10),
            "inside": ("rl", "", (), 20),
            "again": ("sft", "pages", ("text",), 10),
        }
        assert client.register("", str(tmp_path / "web.yaml"), task="other").task == "other"
        assert client.get("web").description == "pages"


def test_a_spec_or_folder_that_cannot_be_used_ends_the_start_with_the_reason(serve: Serve, tmp_path: Path) -> None:
    datafiles.csv(tmp_path / "web", 1, 10)
    (tmp_path / "web.yaml").write_text("path: web\ntaks: sft\n")
    with pytest.raises(DidNotStart, match=r"web\.yaml is refused: unknown key 'taks'; did you mean task"):
        serve(tmp_path / "web.yaml")
    (tmp_path / "web.yaml").write_text("path: web\nrows: 11\n")
    with pytest.raises(DidNotStart, match=r"rows: 11 declared, 10 found"):
        serve(tmp_path / "web.yaml", folder="second")
    with pytest.raises(DidNotStart, match=r"the folder of datasets .*none cannot be listed: No such file or directory"):
        serve("--discover", tmp_path / "none", folder="third")
    with pytest.raises(DidNotStart, match=r"discover_every is 5 but there is no folder to look into: --discover DIR"):
        serve(tmp_path / "web", "--discover-every", 5, folder="fourth")
    with pytest.raises(DidNotStart, match=r"state_dir .*fifth/state is in the folder of datasets .*, of which all is"):
        serve("--discover", tmp_path, folder="fifth")


def test_a_registry_of_which_a_page_is_damaged_ends_the_start_with_its_name_and_the_cure(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(datafiles.csv(tmp_path / "web", 1, 10))
    server.stop()
    file = server.folder / "state" / "registry.sqlite"
    with sqlite3.connect(file) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'versions' AND type = 'table'").fetchone()
    db.close()
    held = bytearray(file.read_bytes())
    held[4096 * (page - 1) : 4096 * page] = b"\xa5" * 4096
    file.write_bytes(held)
    with pytest.raises(DidNotStart, match=r"registry\.sqlite is damaged \(.*restore the file, or remove it") as caught:
        server.start()
    assert "Traceback" not in caught.value.stderr
    file.unlink()
    server.start()
