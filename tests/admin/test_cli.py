import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from penstock_service.admin.cli import main
from penstock_service.admin.http import make_http
from penstock_service.config import Settings
from penstock_service.core.declaration import Declaration
from penstock_service.core.errors import NotFound, ServiceError, Unavailable

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations

Output = pytest.CaptureFixture[str]


def never(settings: Settings) -> int:
    raise AssertionError("no server should be started")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PENSTOCK"):
            monkeypatch.delenv(name)


@pytest.fixture
def address(operations: "SmallOperations") -> Iterator[str]:
    """Where a real HTTP side listens, for commands that ask a server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_http(operations), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield "127.0.0.1:{1}".format(*listening.getsockname())
        server.should_exit = True
        thread.join()


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK")}
    return subprocess.run(
        [sys.executable, "-m", "penstock_service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | environment,
    )


def test_serve_turns_flags_into_settings(tmp_path: Path) -> None:
    seen: list[Settings] = []

    def serve(settings: Settings) -> int:
        seen.append(settings)
        return 7

    store, state = str(tmp_path / "store"), str(tmp_path / "state")
    flags = [
        "--grpc",
        "0.0.0.0:1",
        "--store-dir",
        store,
        "--state-dir",
        state,
        "--store-bytes",
        "1GiB",
        "--workers",
        "3",
    ]
    assert main(serve, ["serve", "a=x.csv", "y/", *flags, "--refill-below", "0.5"]) == 7
    (settings,) = seen
    assert settings.datasets == ("a=x.csv", "y/")
    assert (settings.grpc, settings.store_bytes, settings.workers) == ("0.0.0.0:1", 1 << 30, 3)
    assert (settings.store_dir, settings.state_dir, settings.refill_below) == (Path(store), Path(state), 0.5)


def test_every_setting_has_a_flag(capsys: Output) -> None:
    main(never, ["serve", "--help"])
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert name == "datasets" or f"--{name.replace('_', '-')} " in text
    assert "[NAME=]PATH" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--memory", "5G"], "memory = '5G' (from --memory) is refused: a size is a number of bytes"),
        (["serve", "--nonsense"], "No such option: --nonsense"),
        (["serve", "--config", "/none.yaml"], "there is no config file /none.yaml"),
        (["srve"], "No such command 'srve'. Did you mean 'serve'"),
        (["datasets", "--http", "nowhere"], "--http 'nowhere': an address is HOST:PORT"),
        (["datasets", "register", ""], "a dataset is [NAME=]PATH, such as data/"),
        (["config", "show", "--config", "/none.yaml"], "there is no config file /none.yaml"),
    ],
)
def test_what_is_asked_for_wrongly_ends_with_2(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(never, arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_jobs_are_printed_for_people_and_for_programs(address: str, capsys: Output) -> None:
    assert main(never, ["jobs", "--http", address]) == 0
    assert "missing: 2 of the 3 ranks of run-17, train" in capsys.readouterr().out
    assert main(never, ["jobs", "--http", address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["streams"][0]["lagging"] == [1]


def raising(error: Exception) -> int:
    def serve(settings: Settings) -> int:
        raise error

    return main(serve, ["serve", "data"])


def test_what_the_server_cannot_do_ends_with_1_and_no_traceback(capsys: Output) -> None:
    error = NotFound("there is no file or folder data")
    error.add_note("named on the command line")
    assert raising(error) == 1
    assert capsys.readouterr().err == "penstock: there is no file or folder data\n    named on the command line\n"


def test_the_real_server_is_told_the_same_way(tmp_path: Path) -> None:
    folders = ["--state-dir", str(tmp_path / "state"), "--store-dir", str(tmp_path / "store")]
    ports = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    ended = shell("serve", str(tmp_path / "absent"), *folders, *ports, PENSTOCK__WORKER="3")
    assert (ended.returncode, ended.stdout) == (1, "")
    warning, error = ended.stderr.splitlines()[0], ended.stderr.splitlines()[-1]
    assert "PENSTOCK__WORKER is no setting and has no effect" in json.loads(warning)["message"]
    assert error.startswith("penstock: ")
    assert str(tmp_path / "absent") in error
    assert "Traceback" not in ended.stderr


def test_several_errors_at_once_are_all_told(capsys: Output) -> None:
    two: list[ServiceError] = [NotFound("no a"), Unavailable("no b")]
    assert raising(ExceptionGroup("start", two)) == 1
    assert capsys.readouterr().err == "penstock: no a\npenstock: no b\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        raising(KeyError("x"))
    with pytest.raises(ExceptionGroup, match="start"):
        raising(ExceptionGroup("start", [NotFound("no a"), KeyError("x")]))


@pytest.mark.parametrize("arguments", [["datasets"], ["datasets", "list"], ["inspect", "x"]])
def test_where_no_server_runs_it_says_how_to_start_one(arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    ended = shell(*arguments, PENSTOCK_HTTP=f"127.0.0.1:{free}")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"penstock: no server answers at 127.0.0.1:{free} (Connection refused). Start one with\n"
        "    penstock serve PATH\n"
        "or say where it is with --http HOST:PORT or PENSTOCK_HTTP.\n"
    )


def test_something_else_that_answers_is_not_taken_for_a_server(capsys: Output) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(never, ["datasets", "--http", f"127.0.0.1:{port}"]) == 1
        thread.join()
    assert f"what answers at 127.0.0.1:{port} is no Penstock server's HTTP side" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["{}", "http://{}", "http://{}/"])
def test_datasets_are_listed(address: str, place: str, capsys: Output) -> None:
    assert main(never, ["datasets", "--http", place.format(address)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "VERSION", "ROWS", "SHARDS", "SIZE", "FORMATS", "TASK", "TAGS", "PATH"]
    assert line.split() == ["titanic", "v1", "20", "2", "1.4", "KiB", "csv", "binary", "binary", "data/titanic"]


@pytest.mark.parametrize("order", [["--json", "list"], ["list", "--json"], ["--json"]])
def test_options_count_before_and_after_the_subcommand(address: str, order: list[str], capsys: Output) -> None:
    assert main(never, ["datasets", "--http", address, *order]) == 0
    (found,) = json.loads(capsys.readouterr().out)["datasets"]
    assert found["name"] == "titanic"


def test_datasets_are_searched(address: str, capsys: Output) -> None:
    main(never, ["datasets", "search", "surv", "--tag", "binary", "--http", address])
    assert "titanic" in capsys.readouterr().out
    main(never, ["datasets", "search", "zzz", "--http", address])
    assert capsys.readouterr().out == "no datasets\n"


def test_register_makes_the_path_absolute_and_remove_leaves_the_files(
    address: str, operations: "SmallOperations", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--description", "a b", "--tag", "x", "--tag", "y", "--http", address]
    assert main(never, ["datasets", "register", "web=data/*.csv", *words]) == 0
    made = operations.held["web"]
    assert (made.path, made.description, made.tags) == (str(tmp_path / "data/*.csv"), "a b", ("x", "y"))
    capsys.readouterr()
    assert main(never, ["datasets", "remove", "web", "--http", address]) == 0
    assert capsys.readouterr().out == f"removed web@v1; the files at {tmp_path}/data/*.csv are untouched\n"


def test_what_is_declared_is_passed_on_and_what_is_not_given_is_not_said(
    address: str, operations: "SmallOperations", tmp_path: Path
) -> None:
    words = ["--task", "binary", "--metric", "auc", "--target", "a", "--target", "b", "--rows", "5", "--features", "0"]
    assert main(never, ["datasets", "register", f"web={tmp_path}", *words, "--http", address]) == 0
    assert operations.said == Declaration(task="binary", metric="auc", target=("a", "b"), rows=5, features=0)
    assert main(never, ["datasets", "register", f"web={tmp_path}", "--description", "", "--http", address]) == 0
    assert operations.said == Declaration(description="")


def test_a_dataset_in_use_is_removed_with_force(address: str, operations: "SmallOperations", capsys: Output) -> None:
    operations.in_use = ("titanic",)
    assert main(never, ["datasets", "remove", "titanic", "--http", address]) == 1
    assert capsys.readouterr().err == "penstock: dataset 'titanic' is in use\n"
    assert main(never, ["datasets", "remove", "titanic", "--force", "--json", "--http", address]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "titanic"


def test_versions_differences_and_discoveries_are_shown_as_tables(address: str, capsys: Output) -> None:
    def shown(*words: str) -> list[list[str]]:
        assert main(never, ["datasets", *words, "--http", address]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    header, second, first = shown("versions", "titanic")
    assert header == ["VERSION", "ROWS", "SHARDS", "SIZE", "REGISTERED", "PATH"]
    assert (second[0], first[0]) == ("v2", "v1")
    said, _, added, changed = shown("diff", "a", "b")
    assert " ".join(said) == "a to b: shards 1 added, 0 gone, 1 changed, 1 same"
    assert added == ["added", "n.csv", "0", "5", "0", "50"]
    assert changed == ["changed", "0.csv", "10", "9", "700", "630"]
    said, header, titanic, refused = shown("discover")
    assert " ".join(said) == "/data: 2 children"
    assert header == ["NAME", "VERSION", "STATE", "PATH", "REASON"]
    assert titanic == ["titanic", "v1", "unchanged", "/data/titanic"]
    assert " ".join(refused) == "refused /data/x.png it cannot be read as data"


def test_inspect_shows_facts_and_columns(address: str) -> None:
    shown = shell("inspect", "titanic", "--http", address)
    assert shown.returncode == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["rows", "20"] in lines
    assert ["features", "1"] in lines
    assert ["task", "binary"] in lines
    assert ["target", "age"] in lines
    assert ["metric", "auc"] in lines
    assert ["age", "double", "yes"] in lines
    assert "\x1b" not in shown.stdout


def test_the_servers_refusal_is_told_as_it_is(address: str) -> None:
    refused = shell("inspect", "titanik", PENSTOCK_HTTP=address)
    assert refused.returncode == 1
    assert refused.stderr == "penstock: there is no dataset 'titanik'; the nearest are: titanic\n"


def test_config_show_names_the_origin_of_each_value(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("grpc: 0.0.0.0:1\nchunk_rows: 7\n")
    shown = shell("config", "show", "--json", PENSTOCK_CONFIG=str(tmp_path / "c.yaml"), PENSTOCK__CHUNK_ROWS="9")
    values = json.loads(shown.stdout)
    assert values["grpc"] == {"value": "0.0.0.0:1", "from": str(tmp_path / "c.yaml")}
    assert values["chunk_rows"] == {"value": 9, "from": "PENSTOCK__CHUNK_ROWS"}
    assert values["http"] == {"value": "127.0.0.1:7401", "from": "default"}


def test_config_show_warns_of_variables_without_effect(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("PENSTOCK__GRCP", "x")
    assert main(never, ["config", "show"]) == 0
    captured = capsys.readouterr()
    assert "warning: the environment variable PENSTOCK__GRCP is no setting and has no effect" in captured.err
    assert ["chunk_bytes", "16MiB", "default"] in [line.split() for line in captured.out.splitlines()]


def test_version(capsys: Output) -> None:
    assert main(never, ["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"penstock", "python", "grpcio", "pyarrow"}
    assert main(never, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("penstock ")


def test_asking_a_server_does_not_load_the_server() -> None:
    """`penstock datasets` answers at once because nothing of the data path is imported."""
    code = (
        "import sys; from penstock_service.__main__ import main; sys.argv = ['penstock', 'version']\n"
        "try: main()\n"
        "except SystemExit: print('grpc' in sys.modules, 'penstock_service.app' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False False"


def test_runs_are_shown_with_their_entries(address: str, capsys: Output) -> None:
    assert main(never, ["runs", "--http", address]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["RUN", "JOB", "STREAM", "DATASETS", "RANKS", "EPOCH", "SEGMENT", "ENTRIES"]
    assert line.split() == ["3f2a", "j", "train", "web@v1,", "code@v2", "2", "of", "2", "0", "7", "1"]
    assert main(never, ["runs", "3f", "--http", address]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["quarantine", "0", "3", "web", "4-5;", "torn"]
    assert main(never, ["runs", "3f2a", "--json", "--http", address]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "3f2a"
    assert main(never, ["runs", "--json", "--http", address]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 1
    assert main(never, ["runs", "zz", "--http", address]) == 1
    assert "there is no run 'zz'" in capsys.readouterr().err


def test_a_mixture_is_changed_and_rows_are_quarantined(address: str, capsys: Output) -> None:
    assert main(never, ["mixture", "3f", "web=0.5", "code=0.5", "--http", address]) == 0
    said = capsys.readouterr().out
    assert "begins with step 40 of epoch 0 (segment 7) and is complete by about step 115 of epoch 0" in said
    assert main(never, ["mixture", "3f", "web=0.5", "--http", address]) == 1
    assert "weights must name every dataset" in capsys.readouterr().err
    for wrong in ("web", "web=much"):
        assert main(never, ["mixture", "3f", wrong, "--http", address]) == 2
        assert "give DATASET=WEIGHT" in capsys.readouterr().err
    assert main(never, ["mixture", "3f", "web=1", "web=2", "code=1", "--http", address]) == 2
    assert "web is given twice: web=1 and web=2" in capsys.readouterr().err
    assert main(never, ["quarantine", "3f", "web", "7,9", "40-49", "--http", address]) == 0
    assert "begins with step 0 of epoch 1 (segment 0) and is complete there" in capsys.readouterr().out
    assert main(never, ["quarantine", "3f", "web", "100", "--json", "--http", address]) == 1
    assert "it has rows 0 to 99" in capsys.readouterr().err
