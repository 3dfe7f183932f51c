"""How fast are others? The same rows through Penstock and its peers: rows/s, CPU, memory, seconds to the first batch.

Each peer runs in an environment of its own (`.bench/venvs`, made on demand from benchmarks/peers/NAME.txt) and reads
its own format (`.bench/data`, written once). Each first delivers one epoch of a sixteenth of the rows, which is checked
row by row; then rounds, in which every entrant runs once for each case: 1 s of warm-up, 3 s measured. A slow one is
stopped there; its rate is over what it delivered (`epochs` in the JSON). What cannot be installed, or fails, is in the
table with its error.

    python -m benchmarks.race                     all, 5 rounds: 30 minutes, 25 GB in .bench
    python -m benchmarks.race --peer litdata      one (may be given again); --list says which there are
    python -m benchmarks.race --quick             a sixteenth of the rows, 1 round, 1 s
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness, race_report, rows, venvs
from benchmarks.entrants import ENTRANTS, Entrant
from benchmarks.lap import Failed, Limits, Track

SHARE = 16  # of the rows are checked
PREPARE_SECONDS = 900.0
FAILURES = 2  # after so many an entrant is left out of a case


@dataclass
class Result:
    """What became of one entrant in one case."""

    entrant: Entrant
    laps: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    check: dict[str, Any] | None = None
    track: Track | None = None

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {"note": self.entrant.note, "workers": self.entrant.workers, "versions": self.versions}
        if self.check is not None:
            found["one_epoch"] = self.check
        if self.laps:
            found |= {"laps": len(self.laps), "batch": self.laps[-1]["batch"], **harness.spread(self.laps)}
        if self.errors:
            found["errors"] = self.errors
        return found


def prepared(entrant: Entrant, python: Path, folder: Path, case: rows.Case, limits: Limits) -> tuple[Track, Any]:
    """Its data below `folder`, written now where it is not there or is not of this code; the versions that wrote it."""
    track = Track(entrant, python, folder / f"{case.name}-{case.rows}" / entrant.data, case, limits)
    whole, wanted = track.folder / "prepared.json", entrant.fingerprint()
    if whole.exists():
        found = json.loads(whole.read_text())
        if found["fingerprint"] == wanted:
            return track, found["versions"]
    shutil.rmtree(track.folder, ignore_errors=True)
    versions = track.prepare(PREPARE_SECONDS)
    # Penstock's store belongs to the code of today: it is written anew in each race.
    if entrant.requirements is not None:
        whole.write_text(json.dumps({"fingerprint": wanted, "versions": versions}))
    return track, versions


def ready(result: Result, case: rows.Case, folder: Path, limits: Limits) -> None:
    """Installs, writes data, checks a whole epoch; an error is kept in `result`."""
    entrant = result.entrant
    try:
        python = venvs.python(folder / "venvs", entrant.requirements)
        track, result.versions = prepared(entrant, python, folder / "data", case, limits)
        part = case.part(SHARE)
        tried = track if part == case else prepared(entrant, python, folder / "data", part, limits)[0]
        result.check = tried.check()
        result.track = track
    except venvs.NotInstalled as e:
        result.errors.append(f"not installed: {e}")
    except Failed as e:
        result.errors.append(f"not ready: {e}")


def run(
    entrants: Sequence[Entrant], cases: Sequence[rows.Case], folder: Path, repeats: int, limits: Limits
) -> dict[str, dict[str, Any]]:
    """Every entrant through every case, interleaved; summaries by case and name."""
    results = {case.name: [Result(entrant) for entrant in entrants] for case in cases}
    for case in cases:
        for result in results[case.name]:
            began = time.perf_counter()
            ready(result, case, folder, limits)
            state = result.errors[-1] if result.errors else f"ready, one epoch {result.check}"
            _say(case.name, result.entrant.name, f"{state} ({time.perf_counter() - began:.0f} s)")
    for number in range(repeats):
        for case in cases:
            for result in results[case.name]:
                if result.track is None or len(result.errors) >= FAILURES:
                    continue
                try:
                    lap = result.track.race()
                except Failed as e:
                    result.errors.append(f"round {number + 1}: {e}")
                    _say(number + 1, case.name, result.entrant.name, result.errors[-1])
                else:
                    result.laps.append(lap)
                    _say(number + 1, case.name, result.entrant.name, f"{lap['rows_per_s']:,.0f} rows/s")
    return {name: {one.entrant.name: one.summary() for one in found} for name, found in results.items()}


def _say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def chosen(names: Iterable[str] | None, entrants: Sequence[Entrant] = ENTRANTS) -> list[Entrant]:
    """Those of that name, with the variants of it (`litdata` brings `litdata-2`)."""
    if not names:
        return list(entrants)
    found = [one for one in entrants if any(one.name == name or one.name == f"{name}-2" for name in names)]
    known = {one.name for one in entrants}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no entrant {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return found


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", metavar="NAME", help="only this one; may be given again")
    parser.add_argument("--case", action="append", choices=[case.name for case in rows.RACED])
    parser.add_argument("--list", action="store_true", help="names of the entrants, and what they are")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured in each lap")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before that, at most an epoch")
    parser.add_argument("--silence", type=float, default=120.0, help="seconds until one that says nothing is stopped")
    parser.add_argument("--share", type=int, default=1, help="take only a share-th of the rows")
    parser.add_argument("--quick", action="store_true", help="--share 16 --repeats 1 --seconds 1 --warm 1")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="environments and data; kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.list:
        for one in ENTRANTS:
            print(f"{one.name:14} {one.requirements.name if one.requirements else '-':16} {one.note}")
        return
    if options.quick:
        options.share, options.repeats, options.seconds, options.warm = 16, 1, 1.0, 1.0
    options.folder = options.folder.resolve()
    cases = [one.part(options.share) for one in rows.RACED if not options.case or one.name in options.case]
    limits = Limits(options.warm, options.seconds, options.silence)
    found = harness.report(run(chosen(options.peer), cases, options.folder, options.repeats, limits), options.repeats)
    found |= {"rows": {case.name: case.rows for case in cases}, "warm_s": limits.warm, "measured_s": limits.seconds}
    harness.save(options.json, found)
    table = race_report.markdown(found)
    print(table)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(table)
    if options.plot:
        race_report.plot(options.plot, found)


if __name__ == "__main__":
    main()
