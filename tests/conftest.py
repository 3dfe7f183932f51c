"""Fixtures that several folders use."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import settings

from tests.running import OVER, Running

if TYPE_CHECKING:
    from tests.objectstore import ObjectStore

# Speed belongs to benchmarks: no example fails for being slow on a busy machine.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

Serve = Callable[..., Running]


@pytest.fixture(scope="session")
def _endpoint() -> Iterator[str]:
    from tests.objectstore import running_store  # moto takes a second to import

    with running_store() as endpoint:
        yield endpoint


@pytest.fixture
def store(_endpoint: str) -> "ObjectStore":
    """A bucket on a real S3 protocol server."""
    from tests.objectstore import ObjectStore

    made = ObjectStore(_endpoint, f"bucket-{uuid4().hex[:12]}")
    made.system.create_dir(made.bucket)
    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `every_transport` run over each, or over those that the mark names."""
    mark = metafunc.definition.get_closest_marker("every_transport")
    if "over" in metafunc.fixturenames and mark is not None:
        metafunc.parametrize("over", mark.args or list(OVER), indirect=True)


@pytest.fixture
def over(request: pytest.FixtureRequest) -> str:
    """How the bundles of `serve`'s servers travel."""
    return str(getattr(request, "param", "shm"))


@pytest.fixture
def serve(tmp_path: Path, over: str) -> Iterator[Serve]:
    """Start servers: `serve(path, ..., "--flag", value)`; they are gone when the test ends."""
    started: list[Running] = []

    def start(*arguments: Any, folder: str = "server") -> Running:
        words = [str(a) for a in arguments]
        flags = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        running = Running(tuple(words[:flags]), tmp_path / folder, (*words[flags:], *OVER[over]))
        started.append(running)
        return running.start()

    yield start
    for running in started:
        if hasattr(running, "process") and running.process.poll() is None:
            running.kill()
