import io
import logging

import pytest
from rich.console import Console

from penstock_service.admin.progress import ScanProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_a_line_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock, out = Clock(), io.StringIO()
    with ScanProgress("web", console=Console(file=out), clock=clock) as progress:
        for second in range(12):
            clock.now = second
            progress(second * 1024**2, 16 * 1024**2, second, 1000)
    assert caplog.messages == [
        "scanning web: 5 of 1,000 shards, 5.0 MiB of 16.0 MiB (31 %)",
        "scanning web: 10 of 1,000 shards, 10.0 MiB of 16.0 MiB (62 %)",
    ]
    assert out.getvalue() == ""


def test_what_is_over_at_once_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ScanProgress("web", console=Console(file=io.StringIO())) as progress:
        progress(0, 0, 0, 0)
    assert caplog.messages == []


def test_on_a_terminal_there_is_a_bar_that_leaves_no_trace() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with ScanProgress("web", console=console) as progress:
        progress(1024, 4096, 1, 4)
        progress(4096, 4096, 4, 4)
    assert "scanning web" in out.getvalue()
    assert "4/4 shards" in out.getvalue()
    assert out.getvalue().endswith("\x1b[1A\x1b[2K")  # the line is taken back


def test_a_bar_that_was_never_drawn_is_closed_without_a_trace() -> None:
    out = io.StringIO()
    with ScanProgress("web", console=Console(file=out, force_terminal=True)):
        pass
    assert out.getvalue() == ""
