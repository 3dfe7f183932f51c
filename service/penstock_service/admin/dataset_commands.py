"""`penstock datasets ...`: what may be asked of a running server about its datasets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from penstock_proto.v1.tasks import TASKS
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import (
    print_dataset,
    print_datasets,
    print_difference,
    print_discovery,
    print_json,
    print_versions,
)
from penstock_service.config.addresses import DatasetArgument, is_loopback

Http = Annotated[
    str | None,
    typer.Option("--http", metavar="HOST:PORT", help="the server's HTTP side [env: PENSTOCK_HTTP; 127.0.0.1:7401]"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Name = Annotated[str, typer.Argument(help="NAME or NAME@VERSION")]
Task = Annotated[str | None, typer.Option(metavar="TYPE", help=", ".join(TASKS))]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="may be given several times")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", metavar="COLUMN", help="to be predicted; may be given several times")
]


def dataset_commands() -> typer.Typer:
    group = typer.Typer(
        help="The datasets of a running server: list (default), search, versions, diff, register, remove, discover."
    )

    @group.callback(invoke_without_command=True)
    def default(context: typer.Context, http: Http = None, as_json: Json = False) -> None:
        if context.invoked_subcommand is None:
            list_all(http, as_json)
        else:  # options before the subcommand count as well
            context.default_map = {context.invoked_subcommand: {"http": http, "as_json": as_json}}

    @group.command("list")
    def list_all(http: Http = None, as_json: Json = False) -> None:
        """All datasets."""
        _show_all(Server(http).datasets(), as_json)

    group.command("search")(_search)
    group.command("versions")(_versions)
    group.command("diff")(_diff)
    group.command("register")(_register)
    group.command("remove")(_remove)
    group.command("discover")(_discover)
    return group


def show_one(dataset: dict[str, Any], as_json: bool) -> None:
    print_json(dataset) if as_json else print_dataset(dataset)


def _search(
    text: Annotated[str, typer.Argument(help="part of the name, description, tags, task, metric or a column")] = "",
    task: Task = None,
    tag: Annotated[str, typer.Option(metavar="TAG")] = "",
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Datasets by text, task type and tag."""
    _show_all(Server(http).datasets(text, task or "", tag), as_json)


def _versions(name: Annotated[str, typer.Argument(help="NAME")], http: Http = None, as_json: Json = False) -> None:
    """All versions of a dataset, the newest first."""
    found = Server(http).versions(name)
    print_json({"datasets": found}) if as_json else print_versions(found)


def _diff(a: Name, b: Name, http: Http = None, as_json: Json = False) -> None:
    """The shards that were added, are gone or changed from A to B."""
    found = Server(http).diff(a, b)
    print_json(found) if as_json else print_difference(found)


def _register(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="[NAME=]PATH",
            help="a file, a folder, a glob or a spec (NAME.penstock.yaml); PATH#0-99 takes some shards",
        ),
    ],
    description: Annotated[str | None, typer.Option()] = None,
    task: Task = None,
    tag: Tags = None,
    metric: Annotated[str | None, typer.Option()] = None,
    target: Targets = None,
    rows: Annotated[int | None, typer.Option(help="refused if others are found")] = None,
    features: Annotated[int | None, typer.Option(help="columns less targets; refused if others are found")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="[SPLIT:]COLUMN", help="each file must have it; may be given several times"),
    ] = None,
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Scan a path on the server's machine and keep it as a dataset. What is not given stays as it was."""
    server = Server(http)
    try:
        wanted = DatasetArgument.parse(dataset)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    # What the shell shows here is not what the server sees from its own folder.
    here = is_loopback(server.host) and "://" not in wanted.path
    path = str(Path(wanted.path).expanduser().absolute()) if here else wanted.path
    said: dict[str, Any] = {
        "description": description,
        "task": task,
        "tags": tag or None,
        "metric": metric,
        "target": target or None,
    }
    required: dict[str, list[str]] = {}
    for one in require or []:
        split, _, column = one.rpartition(":")
        required.setdefault(split, []).append(column)
    said |= {"rows": rows, "features": features, "required": required or None}
    show_one(server.register(wanted.name or "", path, {k: v for k, v in said.items() if v is not None}), as_json)


def _remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="even while streams read it: they run on")] = False,
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Forget a dataset. Its files stay."""
    removed = Server(http).remove(name, force)
    if as_json:
        print_json(removed)
    else:
        print(f"removed {removed['name']}@{removed['version']}; the files at {removed['path']} are untouched")


def _discover(http: Http = None, as_json: Json = False) -> None:
    """Look into the server's folder of datasets (serve --discover DIR) now."""
    found = Server(http).discover()
    print_json(found) if as_json else print_discovery(found)


def _show_all(datasets: list[dict[str, Any]], as_json: bool) -> None:
    print_json({"datasets": datasets}) if as_json else print_datasets(datasets)
