"""A server process that reads from an S3 store: the paths, the stream, and what goes wrong, as users meet them."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import penstock
from tests import datafiles
from tests.objectstore import SECRET, ObjectStore, Proxy
from tests.running import DidNotStart, Running

Serve = Callable[..., Running]


@pytest.fixture(autouse=True)
def _where_the_store_is(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people set it, for the server and the command line; not by flags."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def ids(server: Running, name: str, **options: object) -> list[int]:
    with penstock.connect(server.target) as client, client.stream(name, batch_size=64, output="numpy", **options) as s:  # type: ignore[arg-type]
        return [int(i) for batch in s for i in batch["id"]]


@pytest.mark.parametrize("make", [datafiles.parquet, datafiles.csv, datafiles.jsonl])
def test_the_stream_from_s3_is_the_stream_from_the_folder_row_for_row(
    make: Callable[..., Path], serve: Serve, tmp_path: Path, store: ObjectStore
) -> None:
    folder = make(tmp_path / "here", 5, 300)
    uri = store.upload(folder, "deep/there")
    server = serve(folder, uri, "--chunk-rows", 100)
    for seed in (0, 3):
        there = ids(server, "there", seed=seed)
        assert there == ids(server, "here", seed=seed)
        assert sorted(there) == list(range(1500))
    assert ids(server, "there", shuffle=False) == list(range(1500))


def test_worker_processes_read_object_stores_too(serve: Serve, tmp_path: Path, store: ObjectStore) -> None:
    uri = store.upload(datafiles.csv(tmp_path / "a", 3, 100), "rows")
    server = serve(uri, "--worker-kind", "processes", "--workers", "1")
    assert sorted(ids(server, "rows")) == list(range(300))


def test_a_flaky_store_is_not_noticed_by_the_trainer(serve: Serve, tmp_path: Path, store: ObjectStore) -> None:
    uri = store.upload(datafiles.parquet(tmp_path / "a", 4, 500), "rows")
    kinds = ["500", "reset", "cut", "503"]
    with Proxy(store.endpoint, trouble=lambda _, n: kinds[n // 4 % 4] if n % 4 == 0 else "") as proxy:
        server = serve(
            uri, "--s3-endpoint", proxy.endpoint, "--object-retry-base", 0.01, "--object-range-bytes", "64KiB"
        )
        assert sorted(ids(server, "rows")) == list(range(2000))
        assert len(proxy.requests) > 20


def test_paths_by_http_client_and_command_line_are_uris_as_well(
    serve: Serve, tmp_path: Path, store: ObjectStore
) -> None:
    store.upload(datafiles.csv(tmp_path / "a", 2, 50), "data")
    server = serve()
    address = f"http://{server.http}/api/v1/datasets"
    made = httpx.post(address, json={"name": "by-http", "path": store.uri("data/0001.csv")})
    assert (made.status_code, made.json()["rows"], made.json()["path"]) == (201, 50, store.uri("data/0001.csv"))
    with penstock.connect(server.target) as client:
        assert client.register("by-client", store.uri("data/*.csv")).rows == 100
    command = [
        sys.executable,
        "-m",
        "penstock_service",
        "datasets",
        "register",
        store.uri("data"),
        "--http",
        server.http,
    ]
    said = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert (json.loads(said.stdout)["name"], json.loads(said.stdout)["rows"]) == ("data", 100)
    assert ids(server, "by-http", shuffle=False) == list(range(50, 100))


def test_an_object_written_anew_is_refused_when_the_stream_is_opened(
    serve: Serve, tmp_path: Path, store: ObjectStore
) -> None:
    server = serve(store.upload(datafiles.csv(tmp_path / "a", 2, 50), "rows"))
    store.put("rows/0001.csv", b"id,x,y\n1,2,3\n")
    with pytest.raises(
        penstock.PenstockError, match=r"1 of 2 files of rows@\w+ in s3://\S+/rows have changed: 0001\.csv"
    ):
        ids(server, "rows")


def test_a_store_that_goes_down_is_said_to_the_trainer_with_place_and_cure(
    serve: Serve, tmp_path: Path, store: ObjectStore
) -> None:
    uri = store.upload(datafiles.csv(tmp_path / "a", 2, 50), "rows")
    with Proxy(store.endpoint) as proxy:
        server = serve(uri, "--s3-endpoint", proxy.endpoint, "--object-retries", 1, "--object-retry-base", 0.01)
    began = time.monotonic()
    said = rf"{uri}\S* could not be read after 2 tries .*Check that the store is up"
    with pytest.raises(penstock.PenstockError, match=said):
        ids(server, "rows")
    assert time.monotonic() - began < 60


def refusal(serve: Serve, *arguments: object) -> str:
    with pytest.raises(DidNotStart) as caught:
        serve(*arguments)
    assert "Traceback" not in caught.value.stderr
    return caught.value.stderr


def test_a_start_without_the_store_ends_and_says_so(serve: Serve, store: ObjectStore) -> None:
    with Proxy(store.endpoint) as proxy:
        pass
    text = refusal(serve, store.uri("rows"), "--s3-endpoint", proxy.endpoint, "--object-retries", 1)
    assert f"penstock: {store.uri('rows')} could not be read after 2 tries" in text


def test_a_missing_bucket_is_named(serve: Serve) -> None:
    assert "s3://no-such-bucket-here/rows: there is no such bucket" in refusal(serve, "s3://no-such-bucket-here/rows")


def test_a_store_that_denies_access_is_named_with_what_is_needed(serve: Serve, store: ObjectStore) -> None:
    """moto checks credentials only when told to, and for all that it serves: a server of its own."""
    store.put("rows/a.csv", b"id\n1\n")
    authorize = f"{store.endpoint}/moto-api/reset-auth"
    httpx.post(authorize, content=b"0")
    try:
        text = refusal(serve, store.uri("rows"))
    finally:
        httpx.post(authorize, content=b"inf")
    assert f"{store.uri('rows')}: access denied" in text
    assert "may list the bucket and get its objects" in text
    assert SECRET not in text


def test_credentials_in_a_uri_are_refused_and_kept_nowhere(serve: Serve, tmp_path: Path, store: ObjectStore) -> None:
    server = serve("--log-level", "debug")
    uri = f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@{store.bucket}/rows"
    for body in ({"name": "a", "path": uri}, {"name": "", "path": f"s3://{store.bucket}/rows?secret_key={SECRET}"}):
        said = httpx.post(f"http://{server.http}/api/v1/datasets", json=body)
        assert said.status_code == 400
        assert "a URI must not hold" in said.text
        assert SECRET not in said.text
    with penstock.connect(server.target) as client, pytest.raises(penstock.PenstockError) as caught:
        client.register("a", uri)
    assert SECRET not in str(caught.value)
    server.stop()
    text = refusal(serve, f"a={uri}")
    assert "a URI must not hold credentials" in text
    kept = b"".join(file.read_bytes() for file in (tmp_path / "server").rglob("*") if file.is_file())
    for part in (SECRET, SECRET[-12:]):
        assert part not in text
        assert part.encode() not in kept
    shutil.rmtree(tmp_path / "server")


def test_a_scheme_that_is_not_allowed_is_refused(serve: Serve, tmp_path: Path, store: ObjectStore) -> None:
    text = refusal(serve, store.uri("rows"), "--schemes", "file,gs")
    assert "s3:// is not allowed on this server, which reads file, gs" in text
    text = refusal(serve, tmp_path, "--schemes", "s3")
    assert "is a local path, and this server reads s3 only" in text
    assert "schemes = " in refusal(serve, tmp_path, "--schemes", "ftp")
