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

from penstock_service.admin.bad_rows import bad_rows
from penstock_service.admin.dataset_commands import Http, Json, dataset_commands, show_one
from penstock_service.admin.doctor import doctor
from penstock_service.admin.explain_command import explain
from penstock_service.admin.flags import with_flags
from penstock_service.admin.job_commands import show_jobs
from penstock_service.admin.logs import set_up_logs
from penstock_service.admin.memory_command import show_memory
from penstock_service.admin.remote import RemoteError, Server
from penstock_service.admin.run_commands import add_run_commands
from penstock_service.admin.store_commands import show_store, warm
from penstock_service.admin.tables import print_json, print_settings, print_streams
from penstock_service.admin.top import top
from penstock_service.admin.worker_commands import show_workers
from penstock_service.config import Settings
from penstock_service.config.load import SettingsError, load, show
from penstock_service.core.errors import ServiceError

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
    cli.add_typer(dataset_commands(), name="datasets")
    cli.command("inspect")(_inspect)
    cli.command("bad-rows")(bad_rows)
    add_run_commands(cli)
    cli.command("explain")(explain)
    cli.command("streams")(_streams)
    cli.command("jobs")(show_jobs)
    cli.command("store")(show_store)
    cli.command("warm")(warm)
    cli.command("top")(top)
    cli.command("doctor")(doctor)
    cli.command("memory")(show_memory)
    cli.command("workers")(show_workers)
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


def _inspect(name: str, http: Http = None, as_json: Json = False) -> None:
    """One dataset of a running server: its columns, rows and shards. NAME may be NAME@VERSION."""
    show_one(Server(http).dataset(name), as_json)


def _streams(http: Http = None, as_json: Json = False) -> None:
    """The orders that trainers read or have read lately, and how well the last epoch of each was mixed."""
    found = Server(http).streams()
    print_json({"streams": found}) if as_json else print_streams(found)


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
