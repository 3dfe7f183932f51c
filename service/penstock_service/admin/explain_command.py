"""`penstock explain`: where the rows of one step come from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_explanation, print_json


def explain(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET[=WEIGHT] ...")],
    step: Annotated[int, typer.Option(help="of the epoch, from 0")],
    epoch: Annotated[int | None, typer.Option(help="default: that of the state, else 0")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a step at each rank; default: the state's")] = None,
    global_batch_size: Annotated[int | None, typer.Option(help="rows of a step over all ranks, instead")] = None,
    rank: Annotated[int | None, typer.Option(help="default: all")] = None,
    world_size: Annotated[int, typer.Option()] = 1,
    last: Annotated[str, typer.Option(help="short, drop, pad or wrap")] = "short",
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of stream.state_dict(): the pool, the seed, where to count"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="default: that of the state, else 0")] = None,
    split: Annotated[str, typer.Option()] = "train",
    no_shuffle: Annotated[bool, typer.Option("--no-shuffle", help="the datasets one after another, as stored")] = False,
    pool_rows: Annotated[int | None, typer.Option()] = None,
    until: Annotated[str, typer.Option(help="all, first or repeat")] = "all",
    epoch_rows: Annotated[int | None, typer.Option()] = None,
    rows: Annotated[str | None, typer.Option(metavar="JSON", help='row transforms: [{"filter": "x > 0"}]')] = None,
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Dataset, shard, row and segment of each row of one step, without delivering it. Say what the trainer says."""
    asked: dict[str, Any] = {
        "datasets": _datasets(datasets),
        "step": step,
        "epoch": epoch,
        "batch_size": batch_size,
        "global_batch_size": global_batch_size,
        "rank": rank,
        "world_size": world_size,
        "last": last,
        "state": _json("--state", state.read_text()) if state is not None else None,
        "seed": seed,
        "split": split,
        "shuffle": not no_shuffle,
        "pool_rows": pool_rows,
        "until": until,
        "epoch_rows": epoch_rows,
        "rows": _json("--rows", rows) if rows is not None else [],
    }
    found = Server(http).explain(asked)
    print_json(found) if as_json else print_explanation(found)


def _datasets(words: list[str]) -> list[str] | dict[str, float]:
    named = [word.partition("=") for word in words]
    if not any(equals for _, equals, _ in named):
        return words
    try:
        return {name: float(weight) for name, _, weight in named}
    except ValueError:
        raise typer.BadParameter(f"{' '.join(words)}: give each dataset a number as its weight, or none") from None


def _json(flag: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{flag}: not JSON: {error}") from None
