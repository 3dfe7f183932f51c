"""Flags, then the environment, then the file, then defaults: who says what, and where each value came from."""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from penstock_service.config import Settings
from penstock_service.config.sizes import parse_auto_size, parse_size, show_size
from penstock_service.core.uri import redacted

PREFIX = "PENSTOCK__"
FILE_VARIABLE = "PENSTOCK_CONFIG"
# Single underscore: not settings of the server, but of those who talk to it.
CLIENT_VARIABLES = (FILE_VARIABLE, "PENSTOCK_HTTP", "PENSTOCK_TARGET", "PENSTOCK_TOKEN")


_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class SettingsError(ValueError):
    """Settings that cannot be used. The text names each field, its value, where it came from and what is allowed."""


@dataclass(frozen=True)
class Loaded:
    settings: Settings
    origins: dict[str, str]  # by field: "--grpc", "PENSTOCK__GRPC", the file, or "default"
    warnings: tuple[str, ...]  # to be logged once there is a log


def load(flags: Mapping[str, Any], config: Path | None = None) -> Loaded:
    """`flags` holds only those that were given. `config` (else PENSTOCK_CONFIG) is the YAML file."""
    if config is None and (named := os.environ.get(FILE_VARIABLE)):
        config = Path(named)
    layers: list[tuple[Mapping[str, Any], dict[str, str]]] = []
    if config is not None:
        values = _read_file(config)
        layers.append((values, {name: str(config) for name in values}))
    environment = EnvSettingsSource(Settings)()
    layers.append((environment, {name: PREFIX + name.upper() for name in environment}))
    layers.append((flags, {name: flag(name) for name in flags}))

    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for layer, origin in layers:
        merged |= layer
        origins |= origin
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, merged, origins)) from None
    return Loaded(settings, origins, tuple(_strange_variables(os.environ)))


def flag(name: str) -> str:
    return "[NAME=]PATH" if name == "datasets" else "--" + name.replace("_", "-")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"there is no config file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the config file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"the config file {path} is not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"the config file {path} holds a {type(values).__name__}; it needs `setting: value` lines")
    unknown = [f"{path}: unknown setting {k!r}{_nearest(str(k))}" for k in values if k not in Settings.model_fields]
    if unknown:
        raise SettingsError("\n".join(unknown))
    return values


def _strange_variables(environment: Iterable[str]) -> list[str]:
    """Variables that look like ours and are not: nothing would tell the user that they have no effect."""
    found = []
    for variable in sorted(environment):
        if variable in CLIENT_VARIABLES or not variable.startswith("PENSTOCK_"):
            continue
        name = variable.removeprefix(PREFIX).removeprefix("PENSTOCK_").lower()
        if variable.startswith(PREFIX) and name not in Settings.model_fields:
            found.append(f"the environment variable {variable} is no setting and has no effect{_nearest(name, PREFIX)}")
        elif not variable.startswith(PREFIX) and name in Settings.model_fields:
            found.append(f"the environment variable {variable} has no effect; did you mean {PREFIX}{name.upper()}?")
    return found


def _nearest(name: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), list(Settings.model_fields), n=1)
    if not near:
        return "; `penstock config show` lists all settings"
    return f"; did you mean {prefix + near[0].upper() if prefix else near[0]}?"


def _explain(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    # A default that is made from another field is not made where that field is wrong: no news to the user.
    return "\n".join(_line(e, values, origins) for e in error.errors() if e["type"] != "default_factory_not_called")


def _line(error: ErrorDetails, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    context = error.get("ctx", {})
    if not error["loc"]:  # several fields together
        return str(context["error"])
    name = str(error["loc"][0])
    if isinstance(cause := context.get("error"), ValueError):
        text = str(cause)
    elif limits := [f"{_LIMITS[k]} {show(name, v)}" for k, v in context.items() if k in _LIMITS]:
        text = f"it must be {limits[0]}"
    else:
        text = error["msg"][0].lower() + error["msg"][1:]
    return f"{name} = {_printable(values.get(name))} (from {origins.get(name, '?')}) is refused: {text}"


def _printable(value: Any) -> str:
    """A refused value: it may hold what must not be shown."""
    if isinstance(value, (list, tuple)):
        return repr([redacted(str(item)) for item in value])
    return repr(redacted(value)) if isinstance(value, str) else repr(value)


def show(name: str, value: object) -> str:
    """A value as a user would write it."""
    if value is None:
        return "none"
    sized = any(getattr(m, "func", None) in (parse_size, parse_auto_size) for m in Settings.model_fields[name].metadata)
    if sized and isinstance(value, int):
        return show_size(value)
    return " ".join(value) if isinstance(value, tuple) else str(value)
