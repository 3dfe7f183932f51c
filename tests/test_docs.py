"""The documentation names what there is: links, flags, settings, arguments; and its code compiles."""

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import penstock
from penstock.profile import Clock, Profile
from penstock_service.admin.cli import make_cli
from penstock_service.config import Settings
from penstock_service.config.load import FILE_VARIABLE, PREFIX, flag

ROOT = Path(__file__).parent.parent
GUIDES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SERVING, CLIENT = ROOT / "docs" / "serving.md", ROOT / "docs" / "client.md"

_FENCE = re.compile(r"^([ ]*)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_OTHER_COMMAND = re.compile(r"^ *\$? ?(?:pip|git|docker|curl|python|make|torchrun|srun|mpirun)\b.*$", re.MULTILINE)
_ROW = re.compile(r"^\| `([^`|]+)` \| `(PENSTOCK__[A-Z0-9_]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def _pages() -> list[Path]:
    """Every page of the repository; folders with a dot in front hold those of others."""
    found = []
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".") and name not in ("node_modules", "shared")]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_prose(page))]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", _pages(), ids=_named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target}: there is no {there}"
        if anchor:
            assert anchor in _anchors(there), f"{target}: {there.name} has the headings {sorted(_anchors(there))}"


def _flags(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for below in getattr(command, "commands", {}).values():
        yield from _flags(below)


@pytest.mark.parametrize("page", GUIDES, ids=_named)
def test_flags_that_are_named_are_flags_of_a_command(page: Path) -> None:
    known = {"--help", *_flags(typer.main.get_command(make_cli(lambda settings: 0)))}
    named = set(_FLAG.findall(_OTHER_COMMAND.sub("", page.read_text(encoding="utf-8"))))
    assert named <= known, f"no command of penstock has {sorted(named - known)}"


@pytest.mark.parametrize("page", GUIDES, ids=_named)
def test_python_examples_compile(page: Path) -> None:
    for indent, language, code in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("python", "py"):
            compile(re.sub(f"^{indent}", "", code, flags=re.MULTILINE), page.name, "exec", dont_inherit=True)


def test_the_table_of_settings_has_every_setting_in_order_and_no_other() -> None:
    rows = _ROW.findall(SERVING.read_text(encoding="utf-8"))
    assert [(name.removesuffix(" ..."), variable) for name, variable, _, _ in rows] == [
        (flag(name), PREFIX + name.upper()) for name in Settings.model_fields
    ]


def test_defaults_in_the_table_are_the_defaults() -> None:
    compared = 0
    for _, variable, told, _ in _ROW.findall(SERVING.read_text(encoding="utf-8")):
        name = variable.removeprefix(PREFIX).lower()
        field = Settings.model_fields[name]
        if field.default_factory is not None:
            assert not re.fullmatch(r"`[^`]*`", told), f"{name} depends on the machine; the table says {told}"
            continue
        if field.default in (None, ()):
            assert told == "none"
            continue
        # Through the model, as a user's value would go: "512MiB" is a size, "file s3" a list.
        value = told.strip("`").replace(" ", ",")
        assert getattr(Settings.model_validate({name: value}), name) == field.default, name
        compared += 1
    assert compared > 20


def test_settings_and_variables_that_other_pages_name_are_there() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    own = {FILE_VARIABLE, "PENSTOCK_HTTP", "PENSTOCK_TARGET", "PENSTOCK_TOKEN"}
    for page in GUIDES:
        named = set(re.findall(r"\bPENSTOCK_[A-Z0-9_]*[A-Z0-9]", page.read_text(encoding="utf-8")))
        assert named <= known | own, f"{page.name} names {sorted(named - known - own)}"


def test_every_argument_of_a_stream_is_in_the_guide_with_its_default() -> None:
    table = CLIENT.read_text(encoding="utf-8").partition("## Arguments")[2].partition("\n## ")[0]
    told: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`[^|]+?)(?: ●)? \| (.*?) ?\|", table, re.MULTILINE):
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    parameters = inspect.signature(penstock.Client.stream).parameters
    keywords = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert set(told) == set(keywords)
    for name, default in told.items():
        if re.fullmatch(r"`[^`]+`", default):
            assert eval(default.strip("`"), {}) == keywords[name], name  # noqa: S307 - our own page
        else:
            assert keywords[name] is None, name


def test_every_error_of_the_client_is_in_the_guide_with_whether_it_is_retryable() -> None:
    table = re.findall(r"^\| `(\w+)` \| (yes|no) \|", CLIENT.read_text(encoding="utf-8"), re.MULTILINE)
    bases = (penstock.PenstockError, penstock.PermanentError, penstock.RetryableError)
    public = [getattr(penstock, name) for name in penstock.__all__]
    errors = [e for e in public if isinstance(e, type) and issubclass(e, penstock.PenstockError) and e not in bases]
    assert {name: word == "yes" for name, word in table} == {e.__name__: e.retryable for e in errors}


def test_every_number_of_a_profile_is_in_the_guide() -> None:
    told = set(re.findall(r"`(\w+)`", CLIENT.read_text(encoding="utf-8").partition("## Who is slow?")[2]))
    assert set(Profile(Clock())) <= told


def test_the_tests_that_show_the_rules_of_purity_are_there() -> None:
    named = 0
    file = ""
    for part, name in re.findall(
        r"`([\w/.]*?)(?:::(test_\w+))?`", (ROOT / "docs" / "purity.md").read_text(encoding="utf-8")
    ):
        file = part if part.endswith(".py") else file
        if part.endswith(".py"):
            assert (ROOT / "tests" / part).is_file(), f"there is no tests/{part}"
        if name:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name}(" in text, f"tests/{file} has no {name}"
            named += 1
    assert named > 25
