"""The flags of `penstock serve`, made from the settings: a setting without a flag cannot be."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock_service.config import Settings
from penstock_service.config.load import FILE_VARIABLE, flag, show


def with_flags(command: Callable[[dict[str, Any], Path | None], None]) -> Callable[..., None]:
    """A function for typer: it has a flag for each setting and one for the file; passes on those that were given."""

    def run(**given: Any) -> None:
        config = given.pop("config")
        command({name: value for name, value in given.items() if value not in (None, [])}, config)

    # Keyword parameters in a made signature instead of twenty-odd written ones, which would repeat name, type,
    # help and default of each setting.
    parameters = [_parameter(name, field) for name, field in Settings.model_fields.items()]
    file = typer.Option(None, "--config", metavar="FILE", help=f"YAML file of settings [env: {FILE_VARIABLE}]")
    parameters.append(_keyword("config", Path | None, file))
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    if name == "datasets":
        argument = typer.Argument(None, metavar="[NAME=]PATH", help=field.description, show_default=False)
        return _keyword(name, list[str] | None, argument)
    help_text = field.description or ""
    if field.default not in (PydanticUndefined, None):
        help_text += f" [default: {show(name, field.default)}]"
    # Text, whatever the type: the model parses and checks it, with the same message for flag, environment and file.
    return _keyword(name, str | None, typer.Option(None, flag(name), metavar=_metavar(name, field), help=help_text))


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metavar(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    if name in ("grpc", "http"):
        return "HOST:PORT"
    if field.annotation in (Path, Path | None):
        return "DIR"
    return "SIZE" if name.endswith("_bytes") or name == "memory" else "N"
