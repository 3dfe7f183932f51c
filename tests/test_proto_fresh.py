"""The generated code that is checked in is what the pinned generator makes of the .proto files."""

from pathlib import Path

import grpc_tools
import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[1] / "proto"
SOURCES = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.proto"))
GENERATED = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*_pb2*.py*") if p.suffix in (".py", ".pyi"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proto")
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *SOURCES]) == 0
    return out


@pytest.mark.parametrize("path", GENERATED)
def test_generated_code_is_fresh(path: str, fresh: Path) -> None:
    made = (fresh / path).read_text() if (fresh / path).exists() else ""
    assert (ROOT / path).read_text() == made, f"proto/{path} is stale; run `make proto`"


def test_every_source_has_its_code(fresh: Path) -> None:
    made = {p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file()}
    assert made == set(GENERATED), "run `make proto`"
