from pathlib import Path

import pytest

from penstock_service.core.errors import SourceUnreadable
from penstock_service.source.children import Candidate, children


def write(file: Path, text: str = "x\n1\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def found(folder: Path) -> dict[str, Candidate]:
    return {Path(one.path).name: one for one in children(folder)}


def test_files_folders_and_specs_are_children_and_what_is_hidden_is_none(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    write(tmp_path / "b" / "0.csv")
    write(tmp_path / "c.penstock.yaml", "path: elsewhere")
    write(tmp_path / ".git" / "x.csv")
    write(tmp_path / "_tmp.csv")
    assert list(found(tmp_path)) == ["a.csv", "b", "c.penstock.yaml"]
    assert not any(one.problem for one in found(tmp_path).values())


def test_data_that_a_spec_describes_is_no_child_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    write(tmp_path / "b" / "0.csv")
    write(tmp_path / "b" / "b.penstock.yaml", "task: sft")
    write(tmp_path / "a.penstock.yaml", "task: rl")
    write(tmp_path / "z.csv")
    write(tmp_path / "y.penstock.yaml", "path: z.csv")
    assert list(found(tmp_path)) == ["a.penstock.yaml", "b", "y.penstock.yaml"]
    inside = found(tmp_path)["b"].spec
    assert inside is not None
    assert inside.said.task == "sft"


def test_what_cannot_become_a_dataset_has_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "b.csv")
    write(tmp_path / "b.penstock.yaml", "tsak: sft")
    (tmp_path / "c.csv").symlink_to(tmp_path / "none")
    problems = {name: one.problem for name, one in found(tmp_path).items()}
    assert problems["a.png"].startswith("it cannot be read as data. Readable are .parquet")
    assert problems["c.csv"] == "it cannot be looked at: No such file or directory"
    for name in ("b.csv", "b.penstock.yaml"):  # not without what its owner wanted to say
        assert "unknown key 'tsak'; did you mean task" in problems[name]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"the folder of datasets .*/none cannot be listed: No such file"):
        children(tmp_path / "none")
