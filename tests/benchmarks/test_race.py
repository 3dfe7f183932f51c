import ast
from pathlib import Path
from typing import Any

import pytest

from benchmarks import race, race_report, rows
from benchmarks.entrants import ENTRANTS, PEERS, Entrant
from benchmarks.lap import Limits

Found = dict[str, Any]
pytestmark = pytest.mark.timeout(400)  # a dozen processes that import torch: 12 CPU-seconds

CASE = rows.Case("tokens", 32, 16, 32, 8192)  # one batch


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A race of two that run here, one whose file is missing, and one that cannot be installed."""
    folder = tmp_path_factory.mktemp("race")
    wrong = folder / "wrong.txt"
    wrong.write_text("--no-index\nno-such-package==1.0\n")
    entrants = [
        Entrant("penstock", "penstock", None),
        Entrant("memmap", "memmap", None, note="by hand"),
        Entrant("missing", "no_such_peer", None),
        Entrant("wrong", "memmap", wrong),
    ]
    cases = race.run(entrants, [CASE], folder, 1, Limits(warm=0.05, seconds=0.2))
    machine = {"cpus": 2, "memory_bytes": 1 << 30, "platform": "Linux", "load_at_end": [0.0]}
    facts: Found = {"command": "race", "date": "2026-11-21", "repeats": 1, "machine": machine, "rows": {"tokens": 32}}
    return facts | {"warm_s": 0.05, "measured_s": 0.2, "cases": cases}


@pytest.mark.parametrize("name", ["penstock", "memmap"])
def test_each_delivers_every_row_once_and_is_measured(found: Found, name: str) -> None:
    one = found["cases"]["tokens"][name]
    assert race_report.epoch(one["one_epoch"]) == "every row once"
    assert one["laps"] == 1
    assert one["batch"] == {"tokens": ["int32", 32, 2048]}
    for number in ("rows_per_s", "cpu_s_per_gb", "first_batch_s", "peak_rss", "peak_own", "pss_at_end"):
        assert 0 < one[number]["min"] <= one[number]["median"] <= one[number]["max"]
    assert one["twice"]["max"] == 0
    assert one["versions"]["torch"]


def test_who_cannot_be_installed_or_fails_is_in_the_table_with_its_error(
    found: Found,
) -> None:
    case = found["cases"]["tokens"]
    assert case["wrong"]["errors"] == ["not installed: ERROR: No matching distribution found for no-such-package==1.0"]
    assert case["missing"]["errors"] == [
        "not ready: ModuleNotFoundError: No module named 'benchmarks.peers.no_such_peer'"
    ]
    table = [line for line in race_report.markdown(found).splitlines() if line.startswith("|")]
    assert all(line.count("|") == table[0].count("|") for line in table)
    names = [line.split()[1] for line in table[2:]]
    assert set(names[:2]) == {"penstock", "memmap"}
    assert set(names[2:]) == {"missing", "wrong"}
    assert "No matching distribution" in "".join(table)


def test_the_plot_is_drawn(found: Found, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    race_report.plot(tmp_path / "made" / "race.png", found)
    assert (tmp_path / "made" / "race.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("entrant", ENTRANTS, ids=lambda entrant: entrant.name)
def test_every_entrant_has_its_file_and_pinned_requirements(entrant: Entrant) -> None:
    tree = ast.parse((PEERS / f"{entrant.module}.py").read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    defined |= {
        alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname
    }
    defined |= {
        x.id for node in tree.body if isinstance(node, ast.Assign) for x in node.targets if isinstance(x, ast.Name)
    }
    assert {"prepare", "loader"} <= defined
    if entrant.requirements is not None:
        assert all("==" in line for line in entrant.requirements.read_text().splitlines())


def test_a_peer_is_chosen_with_its_variants() -> None:
    assert [one.name for one in race.chosen(["litdata", "ray"])] == ["litdata", "litdata-2", "ray"]
    assert race.chosen(None) == list(ENTRANTS)
    with pytest.raises(SystemExit, match="no entrant nobody; there are grain, "):
        race.chosen(["nobody"])


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (None, "not checked"),
        ({"values": "wrong", "twice": 0, "missing": 0, "of": 9}, "0 missing, 0 twice, values wrong, of 9"),
        ({"values": "wrong", "twice": 1, "missing": 2, "of": 9}, "2 missing, 1 twice, values wrong, of 9"),
    ],
)
def test_an_epoch_that_is_not_whole_is_told(check: dict[str, object] | None, words: str) -> None:
    assert race_report.epoch(check) == words
