import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock_service.chunks import stragglers
from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.executor import Executor, ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.store import Store
from penstock_service.chunks.worker import Make
from penstock_service.core.channel import Bound
from penstock_service.core.retry import Retry

# Worker processes import what they run by name, so that the readers in `makers.py` must have one.
sys.path.insert(0, str(Path(__file__).parents[2]))

Running = Callable[..., AbstractAsyncContextManager[Chunks]]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Chunks that are started and stopped; nothing of them may be left in the end."""
    threads, children = set(threading.enumerate()), set(psutil.Process().children())

    @asynccontextmanager
    async def run(
        make: Make,
        executor: Executor | None = None,
        *,
        store_bytes: int = 1 << 20,
        memory_bytes: int = 1 << 20,
        read_ahead: int = 1 << 20,
        **settings: Any,
    ) -> AsyncIterator[Chunks]:
        memory = tmp_path / "memory"
        memory.mkdir(exist_ok=True)
        store = Store(tmp_path / "store", store_bytes, memory_bytes, memory_folders=[memory])
        settings = {"retry": Retry(base_seconds=0.002, cap_seconds=0.01), **settings}
        chunks = Chunks(make, store, executor or ThreadExecutor(2), Bound("read ahead", read_ahead), **settings)
        await chunks.start()
        try:
            yield chunks
        finally:
            await asyncio.wait_for(chunks.stop(), 30)
            assert list(memory.iterdir()) == []

    yield run
    assert set(threading.enumerate()) <= threads
    assert set(psutil.Process().children()) <= children
    assert not [p.name for p in (tmp_path / "store").glob("*.tmp")]
    assert os.getpid() == psutil.Process().pid


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does: no chunk is begun again where a test does not mean it to be."""
    monkeypatch.setattr(stragglers, "_LEAST", 60.0)


@pytest.fixture(params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return ThreadExecutor(2) if request.param == "threads" else ProcessExecutor(2)
