from pathlib import Path

import pytest

from penstock_service.app.names import name_of
from penstock_service.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/titanic.csv", "titanic"),
        ("/data/titanic.v2.jsonl.gz", "titanic.v2"),
        ("/data/x.v1.parquet", "x.v1"),
        ("/data/web/*.parquet", "web"),
        ("/data/my file (1).csv", "my-file-1"),
        ("/data/.hidden.csv", "hidden"),
        ("/data/" + "a" * 200 + ".csv", "a" * 128),
    ],
)
def test_a_name_is_made_of_the_path(path: str, name: str) -> None:
    assert name_of(path) == name


def test_a_folder_keeps_its_dots(tmp_path: Path) -> None:
    (tmp_path / "v1.csv").mkdir()
    assert name_of(str(tmp_path / "v1.csv")) == "v1.csv"


def test_where_no_name_can_be_made_it_says_how_to_give_one() -> None:
    with pytest.raises(InvalidRequest, match=r"no name can be made of the path '/\*'; .* yourself: NAME=/\*"):
        name_of("/*")
