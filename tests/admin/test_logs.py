import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from penstock_service.admin.logs import set_up_logs

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("uvicorn.access", "uvicorn.error", "asyncio", "fsspec")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name, was in quiet.items():
        logging.getLogger(name).setLevel(was)


def test_text_names_the_stage(capsys: Output) -> None:
    set_up_logs("info", "text")
    logging.getLogger("penstock_service.source.scan").info("%d shards found", 3)
    line = capsys.readouterr().err
    assert line[8:] == " INFO    source  3 shards found\n"


def test_json_lines_carry_extras_and_errors(capsys: Output) -> None:
    set_up_logs("info", "json")
    try:
        dict[str, int]()["x"]
    except KeyError:
        logging.getLogger("penstock_service.deliver").exception("lost %s", "it", extra={"session": "s1"})
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert captured.out == ""
    assert (line["level"], line["message"], line["session"]) == ("error", "lost it", "s1")
    assert line["time"].endswith("+00:00")
    assert line["error"].endswith("KeyError: 'x'")
    assert set(line) == {"time", "level", "logger", "message", "session", "error"}


def test_auto_is_json_where_nobody_watches(capsys: Output) -> None:
    set_up_logs("info", "auto")
    logging.getLogger("penstock_service").info("started")
    assert json.loads(capsys.readouterr().err)["message"] == "started"


def test_the_level_is_kept_and_libraries_are_quieter(capsys: Output) -> None:
    set_up_logs("warning", "text")
    logging.getLogger("penstock_service").info("not shown")
    set_up_logs("info", "text")
    logging.getLogger("uvicorn.error").info("not shown either")
    assert capsys.readouterr().err == ""
    set_up_logs("debug", "text")
    logging.getLogger("uvicorn.error").debug("shown")
    assert capsys.readouterr().err.endswith(" DEBUG   uvicorn  shown\n")


def test_setting_up_twice_logs_once(capsys: Output) -> None:
    set_up_logs("info", "text")
    set_up_logs("info", "text")
    logging.getLogger("penstock_service").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_warnings_are_log_lines(capsys: Output) -> None:
    set_up_logs("info", "text")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", stacklevel=1)
    line = capsys.readouterr().err
    assert " WARNING py  " in line
    assert "UserWarning: old" in line


def test_a_stderr_that_was_replaced_later_is_used(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_logs("info", "text")
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    logging.getLogger("penstock_service").info("above the bar")
    assert "above the bar" in capsys.readouterr().out
