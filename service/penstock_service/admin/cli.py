"""The command line: `penstock serve`, and commands that ask a running server.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly.
"""

import logging
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock_service.admin.flags import with_flags
from penstock_service.admin.logs import set_up_logs
from penstock_service.admin.remote import RemoteError, Server
from penstock_service.admin.tables import print_dataset, print_datasets, print_json, print_settings
from penstock_service.config import Settings
from penstock_service.config.addresses import DatasetArgument, is_loopback
from penstock_service.config.load import SettingsError, load, show
from penstock_service.core.errors import ServiceError

Http = Annotated[
    str | None,
    typer.Option("--http", metavar="HOST:PORT", help="the server's HTTP side [env: PENSTOCK_HTTP; 127.0.0.1:7401]"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="may be given several times")]

log = logging.getLogger(__name__)


def main(serve: Callable[[Settings], int], arguments: list[str] | None = None) -> int:
    """Runs one command. `serve` runs the server until it is told to stop and answers with the exit code."""
    try:
        make_cli(serve)(arguments, prog_name="penstock")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except SettingsError as error:
        return _complain(error, 2)
    except (RemoteError, ServiceError, OSError) as error:
        return _complain(error, 1)
    except ExceptionGroup as group:
        known, bugs = group.split((ServiceError, OSError))
        if bugs is not None or known is None:
            raise
        return max(_complain(error, 1) for error in _leaves(known))
    return 0


def make_cli(serve: Callable[[Settings], int]) -> typer.Typer:
    cli = typer.Typer(
        name="penstock",
        help="Reads, mixes and batches training data once, and streams it to any number of trainers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # "[NAME=]PATH" would be taken for markup
    )
    cli.callback()(_options)
    cli.command("serve")(with_flags(_serve_with(serve)))
    cli.add_typer(_datasets(), name="datasets")
    cli.command("inspect")(_inspect)
    cli.add_typer(_config(), name="config")
    cli.command("version")(_version)
    return cli


def _serve_with(serve: Callable[[Settings], int]) -> Callable[[dict[str, Any], Path | None], None]:
    def command(flags: dict[str, Any], config: Path | None) -> None:
        """Serve files and folders, until SIGTERM or Ctrl-C.

        Each setting is taken from its flag, else from PENSTOCK__NAME in the environment, else from the config file.
        """
        loaded = load(flags, config)
        set_up_logs(loaded.settings.log_level, loaded.settings.log_format)
        for warning in loaded.warnings:
            log.warning(warning)
        raise typer.Exit(serve(loaded.settings))

    return command


def _datasets() -> typer.Typer:
    group = typer.Typer(help="The datasets of a running server: list (default), search, register, remove.")

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

    @group.command()
    def search(
        text: Annotated[str, typer.Argument(help="part of the name or the description")] = "",
        tag: Annotated[str, typer.Option(metavar="TAG")] = "",
        http: Http = None,
        as_json: Json = False,
    ) -> None:
        """Datasets by text and tag."""
        _show_all(Server(http).datasets(text, tag), as_json)

    @group.command()
    def register(
        dataset: Annotated[
            str,
            typer.Argument(metavar="[NAME=]PATH", help="a file, a folder or a glob; PATH#0-99,120- takes some shards"),
        ],
        description: str = "",
        tag: Tags = None,
        require: Annotated[
            list[str] | None,
            typer.Option(
                metavar="[SPLIT:]COLUMN", help="a column that each file must have; may be given several times"
            ),
        ] = None,
        http: Http = None,
        as_json: Json = False,
    ) -> None:
        """Scan a path on the server's machine and keep it as a dataset."""
        server = Server(http)
        try:
            wanted = DatasetArgument.parse(dataset)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        # What the shell shows here is not what the server sees from its own folder.
        here = is_loopback(server.host) and "://" not in wanted.path
        path = str(Path(wanted.path).expanduser().absolute()) if here else wanted.path
        required: dict[str, list[str]] = {}
        for one in require or []:
            split, _, column = one.rpartition(":")
            required.setdefault(split, []).append(column)
        _show_one(server.register(wanted.name or "", path, description, tag or [], required), as_json)

    @group.command()
    def remove(
        name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION")], http: Http = None, as_json: Json = False
    ) -> None:
        """Forget a dataset. Its files stay."""
        removed = Server(http).remove(name)
        if as_json:
            print_json(removed)
        else:
            print(f"removed {removed['name']}@{removed['version']}; the files at {removed['path']} are untouched")

    return group


def _inspect(name: str, http: Http = None, as_json: Json = False) -> None:
    """One dataset of a running server: its columns, rows and shards. NAME may be NAME@VERSION."""
    _show_one(Server(http).dataset(name), as_json)


def _config() -> typer.Typer:
    group = typer.Typer(help="The settings.", no_args_is_help=True)

    @group.callback()
    def only_a_group() -> None:
        """The settings that `penstock serve` would have here."""

    @group.command("show")
    def show_settings(
        config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="YAML file of settings")] = None,
        as_json: Json = False,
    ) -> None:
        """Each setting, its value, and where that comes from."""
        loaded = load({}, config)
        values = loaded.settings.model_dump(mode="json")
        for warning in loaded.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if as_json:
            print_json({name: {"value": v, "from": loaded.origins[name]} for name, v in values.items()})
        else:
            settings = loaded.settings
            print_settings((name, show(name, getattr(settings, name)), loaded.origins[name]) for name in values)

    return group


def _version(as_json: Json = False) -> None:
    """The version, and those of what it runs on."""
    versions = {"penstock": version("penstock"), "python": platform.python_version()}
    versions |= {name: version(name) for name in ("grpcio", "pyarrow")}
    if as_json:
        print_json(versions)
    else:
        print("\n".join(f"{name} {value}" for name, value in versions.items()))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {version('penstock')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version", is_eager=True, callback=_print_version)
    ] = False,
) -> None: ...


def _show_all(datasets: list[dict[str, Any]], as_json: bool) -> None:
    print_json({"datasets": datasets}) if as_json else print_datasets(datasets)


def _show_one(dataset: dict[str, Any], as_json: bool) -> None:
    print_json(dataset) if as_json else print_dataset(dataset)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _complain(error: Exception, code: int) -> int:
    print(f"penstock: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"    {note}", file=sys.stderr)
    return code
