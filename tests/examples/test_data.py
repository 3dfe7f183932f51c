"""The data in the repository is what examples/data/ORIGIN.md says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DATA = Path(__file__).parents[2] / "examples" / "data"
SCHEMA = pa.schema([("id", pa.int64()), ("label", pa.int64()), ("pixels", pa.list_(pa.float32(), 64))])


def read(folder: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((DATA / folder).glob("*.parquet")))


def test_the_digits_are_the_1797_of_uci_each_in_one_part() -> None:
    train, test = read("digits"), read("digits_test")
    assert (train.num_rows, test.num_rows) == (1437, 360)
    assert sorted(train["id"].to_pylist() + test["id"].to_pylist()) == list(range(1797))
    for table in (train, test):
        assert table.cast(SCHEMA).equals(table)  # Parquet calls the items of a list "element"
        assert pc.min_max(pc.list_flatten(table["pixels"])).as_py() == {"min": 0, "max": 16}


def test_the_training_digits_are_sorted_by_label_so_that_mixing_matters() -> None:
    labels = read("digits")["label"].to_pylist()
    assert labels == sorted(labels)
    assert set(labels) == set(range(10))


def test_the_table_has_a_target_and_569_rows() -> None:
    lines = (DATA / "breast_cancer.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 569
    assert {line.count(",") for line in lines} == {30}
    assert sum(line.endswith(",1") for line in lines[1:]) == 212


def test_it_is_small_and_its_origin_is_told() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 500_000
    told = (DATA / "ORIGIN.md").read_text(encoding="utf-8")
    for path in DATA.iterdir():
        if path.is_dir() or path.suffix == ".csv":
            assert path.name in told or path.name == "__pycache__"
