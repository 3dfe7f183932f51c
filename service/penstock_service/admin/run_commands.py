"""`penstock runs`, `penstock mixture` and `penstock quarantine`: what is read now, and changing it."""

from typing import Annotated, Any

import typer

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_json, print_runs

RunId = Annotated[str, typer.Argument(metavar="RUN", help="its id (`penstock runs`), or the first letters of it")]


def add_run_commands(cli: typer.Typer) -> None:
    cli.command("runs")(_runs)
    cli.command("mixture")(_mixture)
    cli.command("quarantine")(_quarantine)


def _runs(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="one run, with the entries of its journal")] = "",
    http: Http = None,
    as_json: Json = False,
) -> None:
    """The runs that are being read, and those whose mixture or rows were changed."""
    if run:
        found = Server(http).run(run)
        print_json(found) if as_json else print_runs([found], entries=True)
    else:
        every = Server(http).runs()
        print_json({"runs": every}) if as_json else print_runs(every)


def _mixture(
    run: RunId,
    weights: Annotated[list[str], typer.Argument(metavar="DATASET=WEIGHT...", help="every dataset of the mixture")],
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Change the mixture of a run while it is read, as in: penstock mixture 3f2a web=0.5 code=0.5"""
    wanted: dict[str, float] = {}
    for one in weights:
        name, _, weight = one.rpartition("=")
        if name in wanted:
            raise typer.BadParameter(f"{name} is given twice: {name}={wanted[name]:g} and {one}")
        try:
            wanted[name] = float(weight)
        except ValueError:
            raise typer.BadParameter(f"{one!r}: give DATASET=WEIGHT, as in web=0.5") from None
    _say(Server(http).set_mixture(run, wanted), as_json)


def _quarantine(
    run: RunId,
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    rows: Annotated[list[str], typer.Argument(metavar="ROWS...", help="stored numbers, or ranges such as 40-49")],
    reason: Annotated[str, typer.Option(help="is kept with it")] = "",
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Leave rows out of what a run has still to read; no other row moves."""
    numbers = [number for word in rows for number in word.split(",") if number]
    _say(Server(http).quarantine(run, dataset, numbers, reason), as_json)


def _say(change: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    about = "" if change["exact"] else "about "
    begins = f"{about}step {change['step']} of epoch {change['epoch']} (segment {change['segment']})"
    complete = f"step {change['complete_step']} of epoch {change['complete_epoch']}"
    at_once = (change["complete_epoch"], change["complete_segment"]) == (change["epoch"], change["segment"])
    said = "and is complete there" if at_once else f"and is complete by about {complete}"
    print(f"run {change['run']}: written down; it begins with {begins} {said}")
