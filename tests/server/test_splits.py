"""Splits, shard ranges and what is said of them, as users of a real server meet them."""

from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock_service.admin.cli import main
from tests.running import DidNotStart, Running

Serve = Callable[..., Running]


def write(file: Path, columns: str, *rows: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([columns, *rows, ""]))


def kaggle(folder: Path) -> Path:
    """The target is in train.csv only."""
    write(folder / "train.csv", "id,age,survived", *(f"{i},{i % 80},{i % 2}" for i in range(100)))
    write(folder / "test.csv", "id,age", *(f"{i},{i % 80}" for i in range(1000, 1040)))
    return folder


def ids(stream: penstock.Stream, column: str = "id") -> list[int]:
    return [int(i) for batch in stream for i in batch[column]]


def test_a_kaggle_folder_is_served_with_no_configuration(serve: Serve, tmp_path: Path) -> None:
    running = serve(kaggle(tmp_path / "titanic"))
    with penstock.connect(running.target) as client:
        (found,) = client.datasets()
        assert [(s.name, s.rows, s.schema.names) for s in found.splits] == [
            ("train", 100, ["id", "age", "survived"]),
            ("test", 40, ["id", "age"]),
        ]
        assert (found.rows, found.schema.names) == (100, ["id", "age", "survived"])
        train = client.stream("titanic", batch_size=16, output="numpy")
        assert sorted(ids(train)) == list(range(100))
        test = client.stream("titanic", split="test", batch_size=16, output="numpy")
        assert sorted(ids(test)) == list(range(1000, 1040))
        assert set(next(iter(test))) == {"id", "age"}
        train.close()
        test.close()


def test_the_form_of_an_answer_beside_train_and_test_is_no_data(serve: Serve, tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "titanic")
    write(folder / "gender_submission.csv", "id,survived", "1000,0")
    running = serve(folder)
    assert "ignored: 1 submission files (beside train and test)" in running.log.read_text()
    with penstock.connect(running.target) as client:
        assert [(s.name, s.rows) for s in client.get("titanic").splits] == [("train", 100), ("test", 40)]


def test_a_submission_without_a_test_file_beside_it_is_data(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path / "forms" / "my_submission.csv", "id", "1", "2")
    with penstock.connect(serve(tmp_path / "forms").target) as client:
        assert client.get("forms").rows == 2


def test_both_splits_stream_at_once_and_are_told_apart_where_sessions_are_shown(serve: Serve, tmp_path: Path) -> None:
    running = serve(kaggle(tmp_path / "titanic"))
    with penstock.connect(running.target) as client:
        train = client.stream("titanic", batch_size=10, output="numpy")
        test = client.stream("titanic", split="test", batch_size=10, output="numpy")
        for one, other in zip(train, test, strict=False):
            assert max(one["id"]) < 1000 <= min(other["id"])
        version = client.get("titanic").version
        assert f'"titanic@{version}:test"' in running.get("/api/v1/sessions")
        train.close()
        test.close()


def test_a_split_that_is_not_there_is_refused_with_those_that_are(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path / "held" / "dev.csv", "id", "1", "2")
    write(tmp_path / "held" / "test.csv", "id", "3")
    running = serve(tmp_path / "held")
    with penstock.connect(running.target) as client:
        with pytest.raises(penstock.DatasetNotFound) as caught:
            ids(client.stream("held", batch_size=1, output="numpy"))
        assert "has no split 'train'; it has dev (2 rows), test (1 rows). Ask for one of them: split='dev'" in str(
            caught.value
        )
        assert sorted(ids(client.stream("held", split="valid", batch_size=1, output="numpy"))) == [1, 2]


def test_a_state_of_one_split_survives_new_files_of_another(serve: Serve, tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "titanic")
    running = serve(folder)
    with penstock.connect(running.target) as client:
        stream = client.stream("titanic", batch_size=10, output="numpy")
        first = [int(i) for _, batch in zip(range(4), stream, strict=False) for i in batch["id"]]
        state = stream.state_dict()
        stream.close()
        before = client.get("titanic").version
        write(folder / "test2.csv", "id,age", "2000,1")
        assert client.register("titanic", str(folder)).version != before
        again = client.stream("titanic", batch_size=10, output="numpy")
        again.load_state_dict(state)
        assert sorted(first + ids(again)) == list(range(100))
        again.close()
        other = client.stream("titanic", split="test", batch_size=10, output="numpy")
        other.load_state_dict(state)
        with pytest.raises(penstock.CursorMismatch, match="sources"):
            next(iter(other))


def test_training_and_validation_by_disjoint_ranges_is_one_line_each(serve: Serve, tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / "data" / f"part-{i:05}.csv", "id", str(i))
    data = tmp_path / "data"
    running = serve(f"mine={data}#0-7,10-", f"held-out={data}#8,9")
    with penstock.connect(running.target) as client:
        mine = client.stream("mine", batch_size=4, output="numpy")
        held_out = client.stream("held-out", batch_size=4, output="numpy")
        assert sorted(ids(mine)) == [*range(8), 10, 11]
        assert sorted(ids(held_out)) == [8, 9]
        few = client.register("few", str(data), shards="1-2")
        assert few.rows == 2
        with pytest.raises(penstock.InvalidRequest, match=r"'12-' goes beyond the last shard: .* has 12 shards"):
            client.register("none", str(data), shards="12-")


def test_several_paths_of_one_name_are_one_dataset_and_a_file_reached_twice_is_said(
    serve: Serve, tmp_path: Path
) -> None:
    for i in range(4):
        write(tmp_path / "web" / f"{i}.csv", "id", str(i))
        write(tmp_path / "books" / f"{i}.csv", "id", str(10 + i))
    web = tmp_path / "web"
    running = serve(f"all={web}/*.csv", f"all={web}/[01].csv", f"all={tmp_path}/books")
    assert "2 files are reached twice and read once: web/0.csv, web/1.csv" in running.log.read_text()
    with penstock.connect(running.target) as client:
        assert sorted(ids(client.stream("all", batch_size=4, output="numpy"))) == [0, 1, 2, 3, 10, 11, 12, 13]


def test_an_empty_folder_among_full_ones_is_warned_of_and_weighs_nothing(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "full" / "a.csv", "id", "1", "2")
    (tmp_path / "bare").mkdir()
    running = serve(tmp_path / "full", tmp_path / "bare")
    assert "dataset bare holds nothing and weighs 0 in mixtures" in running.log.read_text()
    with penstock.connect(running.target) as client:
        both = client.stream({"full": 0.5, "bare": 0.5}, batch_size=1, output="numpy")
        assert sorted(ids(both)) == [1, 2]
        assert "bare weighs 0" in caplog.text
        with pytest.raises(penstock.InvalidRequest, match="no files there"):
            ids(client.stream(["bare"], batch_size=1, output="numpy"))
    with pytest.raises(DidNotStart) as caught:
        serve(tmp_path / "bare", folder="second")
    assert f"{tmp_path / 'bare'}: no files there" in caught.value.stderr


def test_a_file_that_two_datasets_of_a_mixture_share_is_reported_when_the_stream_is_opened(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        write(tmp_path / "one" / f"{i}.csv", "id", str(i))
    write(tmp_path / "two" / "x.csv", "id", "7")
    (tmp_path / "two" / "link.csv").symlink_to(tmp_path / "one" / "2.csv")
    running = serve(tmp_path / "one", tmp_path / "two")
    with penstock.connect(running.target) as client:
        assert sorted(ids(client.stream(["one", "two"], batch_size=1, output="numpy"))) == [0, 1, 2, 2, 7]
        said = "1 files (1 rows) of one are in two too: 2.csv. Their rows come once for each of the two"
        assert said in caplog.text
        assert said in running.log.read_text()


def test_required_columns_are_refused_with_file_column_and_the_columns_found(serve: Serve, tmp_path: Path) -> None:
    running = serve(kaggle(tmp_path / "titanic"))
    with penstock.connect(running.target) as client:
        path = str(tmp_path / "titanic")
        client.register("titanic", path, required={"train": ["survived"], "test": ["age"]})
        with pytest.raises(penstock.InvalidRequest, match=r"test\.csv has no column 'survived' \(it has id, age\)"):
            client.register("titanic", path, required={"test": ["id", "survived"]})
        with pytest.raises(penstock.InvalidRequest, match=r"split 'dev', and the splits found are train, test"):
            client.register("titanic", path, required={"dev": ["id"]})


def test_the_command_line_registers_shards_asks_for_columns_and_shows_splits(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        write(tmp_path / "d" / f"{i}.csv", "id", str(i))
    running = serve(kaggle(tmp_path / "titanic"))

    def command(*words: str) -> tuple[int, str]:
        code = main(lambda settings: 1, [*words, "--http", running.http])
        said = capsys.readouterr()
        return code, said.out + said.err

    assert command("datasets", "register", f"d={tmp_path}/d#1-2", "--require", "id")[0] == 0
    code, text = command("datasets", "register", f"d={tmp_path}/d", "--require", "id", "--require", "train:age")
    assert (code, "0.csv has no column 'age' (it has id)" in text) == (1, True)
    code, text = command("inspect", "titanic")
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert ["train", "100", "id,", "age,", "survived"] in [[*line[:2], *line[5:]] for line in lines]
    assert ["test", "40", "id,", "age"] in [[*line[:2], *line[5:]] for line in lines]


def test_a_split_can_be_indexed(serve: Serve, tmp_path: Path) -> None:
    running = serve(kaggle(tmp_path / "titanic"))
    with penstock.connect(running.target) as client:
        train = client.dataset("titanic", output="rows")
        test = client.dataset("titanic", split="test", output="rows")
        assert (len(train), len(test)) == (100, 40)
        assert train[0] == {"id": 0, "age": 0, "survived": 0}
        assert test[-1] == {"id": 1039, "age": 1039 % 80}
        assert test.metadata.reference == f"titanic@{test.metadata.version}:test"
        with pytest.raises(penstock.DatasetNotFound, match=r"it has train \(100 rows\), test \(40 rows\)"):
            client.dataset("titanic", split="dev")
