import copy
import pickle
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from penstock.batch import Batch, BatchMetadata
from penstock.errors import InvalidRequest

METADATA = BatchMetadata(epoch=1, step=7, rows=2, rank=0, world_size=1)


@pytest.fixture
def batch() -> Batch:
    columns = {"x": torch.arange(4.0).reshape(2, 2), "label": torch.tensor([0, 1]), "name": ["a", "b"]}
    return Batch(columns, METADATA)


def test_keys_are_attributes_too(batch: Batch) -> None:
    assert batch.x is batch["x"]
    assert "x" in dir(batch)
    with pytest.raises(AttributeError, match="no column 'y'; it has x, label, name"):
        _ = batch.y


def test_methods_of_dict_win_over_columns() -> None:
    batch = Batch({"items": 1, "metadata": 2, "to": 3}, METADATA)
    assert list(batch.items()) == [("items", 1), ("metadata", 2), ("to", 3)]
    assert batch.metadata is METADATA
    with pytest.raises(AttributeError, match=r"batch\['items'\] = "):
        batch.items = 5  # type: ignore[method-assign,assignment]


def test_an_attribute_that_is_set_or_deleted_is_a_column(batch: Batch) -> None:
    batch.y = torch.zeros(2)
    assert batch["y"] is batch.y
    del batch.y
    assert list(batch) == ["x", "label", "name"]
    with pytest.raises(AttributeError, match="no column 'y'"):
        del batch.y


def test_metadata_is_no_key(batch: Batch) -> None:
    def model(x: torch.Tensor, label: torch.Tensor, name: list[str]) -> int:
        return len(name)

    assert model(**batch) == 2
    assert "metadata" not in batch
    assert {name: value.to("cpu") for name, value in batch.items() if name != "name"}.keys() == {"x", "label"}


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, Batch.copy, lambda b: pickle.loads(pickle.dumps(b))])  # noqa: S301
def test_a_copy_is_a_batch_with_its_metadata(batch: Batch, again: Any) -> None:
    other = again(batch)
    assert type(other) is Batch
    assert other.metadata == METADATA
    assert list(other) == list(batch)
    assert torch.equal(other.x, batch.x)


def test_a_batch_that_was_rebuilt_from_a_plain_dict_says_that_it_has_no_metadata(batch: Batch) -> None:
    rebuilt = Batch({name: batch[name] for name in batch})
    with pytest.raises(AttributeError, match="rebuilt from a plain dict"):
        _ = rebuilt.metadata
    assert not hasattr(pickle.loads(pickle.dumps(rebuilt)), "metadata")  # noqa: S301
    rebuilt.metadata = METADATA
    assert rebuilt.metadata.step == 7


def test_to_moves_tensors_and_keeps_lists_and_metadata(batch: Batch) -> None:
    moved = batch.to("meta", non_blocking=True)
    assert moved.x.device.type == "meta"
    assert batch.x.device.type == "cpu"
    assert moved.name == ["a", "b"]
    assert moved.metadata == METADATA


def test_pin_memory_is_for_those_who_have_an_accelerator(batch: Batch) -> None:
    pinned = batch.pin_memory()
    assert torch.equal(pinned.x, batch.x)
    assert pinned.metadata == METADATA
    assert pinned.x.is_pinned() == torch.accelerator.is_available()


@pytest.mark.parametrize("move", [lambda batch: batch.to("cpu"), Batch.pin_memory])
@pytest.mark.parametrize(
    ("value", "said"), [(mx.zeros(2), "MLX arrays live in memory"), (np.zeros(2), "column 'x' is ndarray")]
)
def test_what_has_no_device_is_not_moved(move: Any, value: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        move(Batch({"x": value}))


def test_a_batch_of_nothing_but_lists_needs_no_torch() -> None:
    assert Batch({"name": ["a"]}).to("cpu") == {"name": ["a"]}
