import os
from pathlib import Path

import pytest

from penstock_service.core.errors import InvalidRequest, SourceUnreadable
from penstock_service.source.discover import discover
from penstock_service.source.formats import format_of


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")


def paths(where: object) -> list[str]:
    return [file.path for file in discover(str(where)).files]


def test_a_folder_is_its_readable_files_at_any_depth_in_the_order_of_path_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "b.csv", "a/z.csv", "a.csv", "B.csv", "a-b/é.csv", "a-b/z.csv", "10.csv", "9.csv")
    assert paths(tmp_path) == ["10.csv", "9.csv", "B.csv", "a-b/z.csv", "a-b/é.csv", "a.csv", "a/z.csv", "b.csv"]
    assert discover(str(tmp_path)).root == str(tmp_path)


def test_hidden_files_and_unknown_suffixes_are_ignored_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", ".b.csv", "_c.csv", ".git/d.csv", "_temporary/e.csv", "f.png", "README", "g.PNG")
    found = discover(str(tmp_path))
    assert [f.path for f in found.files] == ["a.csv"]
    assert found.notes == ("ignored: 2 hidden (named .* or _*), 2 .png, 1 without a suffix",)


def test_a_folder_without_a_readable_file_says_what_is_there_and_what_would_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no files there\. Readable are \.parquet"):
        discover(str(tmp_path))
    touch(tmp_path, "a.png", "b.png", ".c.csv")
    with pytest.raises(InvalidRequest) as error:
        discover(str(tmp_path))
    text = f"{tmp_path}: no readable file among 3: 2 .png, 1 hidden (named .* or _*). Readable are .parquet"
    assert str(error.value).startswith(text)


def test_a_missing_path_says_what_is_there_instead(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.csv")
    with pytest.raises(InvalidRequest) as error:
        discover(str(tmp_path / "dada" / "a.csv"))
    text = f"{tmp_path}/dada/a.csv: no such file or folder ({tmp_path} exists and holds 1 names: data)"
    assert str(error.value) == text
    with pytest.raises(InvalidRequest, match="path is empty"):
        discover(" ")


def test_a_single_file_is_a_dataset_even_if_hidden_but_its_suffix_must_be_known(tmp_path: Path) -> None:
    touch(tmp_path, "_a.CSV.GZ", "b.png")
    found = discover(str(tmp_path / "_a.CSV.GZ"))
    assert (found.root, found.files[0].path) == (str(tmp_path), "_a.CSV.GZ")
    with pytest.raises(InvalidRequest, match=r"b\.png: \.png files cannot be read\. Readable are"):
        discover(str(tmp_path / "b.png"))


def test_a_glob_is_relative_to_its_fixed_part_and_may_cross_folders(tmp_path: Path) -> None:
    touch(tmp_path, "x/1/a.csv", "x/2/a.csv", "x/2/b.jsonl", "y/1/a.csv", "x/1/z.png")
    assert paths(tmp_path / "x" / "*" / "*.csv") == ["1/a.csv", "2/a.csv"]
    assert paths(tmp_path / "x" / "**") == ["1/a.csv", "2/a.csv", "2/b.jsonl"]
    assert discover(str(tmp_path / "x" / "*" / "a.*")).root == str(tmp_path / "x")
    with pytest.raises(InvalidRequest, match="no files there"):
        discover(str(tmp_path / "x" / "*" / "*.nothing"))


def test_a_path_with_wildcard_characters_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].csv", "a1.csv", "f[1]/b.csv")
    assert paths(tmp_path / "a[1].csv") == ["a[1].csv"]
    assert paths(tmp_path / "f[1]") == ["b.csv"]


def test_a_relative_path_gives_an_absolute_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/a.csv")
    monkeypatch.chdir(tmp_path)
    assert discover("data").root == str(tmp_path / "data")
    assert discover("data/*.csv").root == str(tmp_path / "data")


def test_a_file_reached_twice_is_read_once_and_this_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.csv", "x/b.csv", "y/c.csv")
    (tmp_path / "x" / "link.csv").symlink_to(tmp_path / "x" / "a.csv")
    (tmp_path / "x" / "folder").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "up").symlink_to(tmp_path / "x")  # a loop
    found = discover(str(tmp_path / "x"))
    assert [f.path for f in found.files] == ["a.csv", "b.csv", "folder/c.csv"]
    assert found.notes == ("1 files are reached twice and read once: link.csv (= a.csv)",)


def test_a_link_to_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(SourceUnreadable, match=r"b\.csv is a link to nothing"):
        discover(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(SourceUnreadable, match=r"a\.csv may not be read by this user"):
        discover(str(tmp_path))


def test_a_pipe_is_no_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InvalidRequest, match="no regular file"):
        discover(str(tmp_path))


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).write_text("x\n")
    with pytest.raises(InvalidRequest, match=r"udcff\.csv': names of files must be UTF-8"):
        discover(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("a.parquet", "parquet"), ("a.feather", "arrow"), ("a.jsonl.gz", "jsonl"), ("A.NDJSON.ZST", "jsonl")),
        *(("x.y/a.json", "json"), ("a.tsv", "tsv"), ("a.b.md", "text"), ("a.gz", None), ("a.parquet.gz", None)),
        *(("csv", None), (".csv", "csv"), ("a.jsonl.bz2", None), ("jsonl.gz", None), ("x.csv/a", None)),
    ],
)
def test_the_format_is_told_by_the_name(name: str, kind: str | None) -> None:
    found = format_of(name)
    assert (found.name if found else None) == kind
