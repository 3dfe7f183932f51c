"""What a trainer installs: small, and quiet until it is used."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABSENT = ["fastapi", "torch", "mlx", "psutil", "prometheus_client", "pydantic", "typer", "rich", "uvicorn", "yaml"]


@pytest.fixture(scope="module")
def light_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, with the project and what it cannot do without."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path | str, code: str) -> str:
    done = subprocess.run([python, "-I", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_the_client_is_imported_without_what_the_server_needs(light_python: Path) -> None:
    code = f"""
        import importlib.util, json, penstock
        from penstock_proto.v1 import control_pb2_grpc, data_pb2_grpc  # the floors of grpcio and protobuf hold
        print(json.dumps([name for name in {ABSENT} if importlib.util.find_spec(name)]))
        print(penstock.__file__)
    """
    present, where = run(light_python, code).splitlines()
    assert json.loads(present) == []
    assert Path(where).is_relative_to(light_python.parents[1])


@pytest.mark.timeout(600)
def test_the_script_says_what_to_install(light_python: Path) -> None:
    done = subprocess.run([light_python.parent / "penstock", "serve", "x"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is not installed; pip install 'penstock[service]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_client_starts_no_thread_and_opens_no_socket() -> None:
    code = """
        import sys, threading
        opened = []
        sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
        import penstock
        print(threading.active_count(), opened)
    """
    assert run(sys.executable, code) == "1 []\n"


def test_importing_the_client_leaves_torch_and_mlx_alone() -> None:
    code = """
        import sys, penstock
        print([name for name in ("torch", "mlx", "fastapi", "psutil") if name in sys.modules])
    """
    assert run(sys.executable, code) == "[]\n"
