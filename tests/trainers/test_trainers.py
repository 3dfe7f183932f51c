"""The stream in the trainers people have: every row once in each epoch, and the model learns. `make trainers`."""

from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import penstock
from tests import datafiles
from tests.running import Running

# Their own warnings (deprecations, tips) are not ours to fix.
pytestmark = [pytest.mark.trainers, pytest.mark.filterwarnings("default")]

ROWS = 1000
EPOCHS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("trainers")
    data = datafiles.parquet(folder / "rows", shards=4, rows=ROWS // 4)
    with Running((str(data),), folder / "server") as running:
        yield running


@pytest.fixture
def stream(server: Running) -> Iterator[penstock.Stream]:
    with penstock.connect(server.target) as client, client.stream("rows", batch_size=32) as found:
        yield found


def loader_of(stream: penstock.Stream) -> Any:
    return DataLoader(stream.as_dataset(), batch_size=None)


def check_each_row_came_once_an_epoch(ids: list[int]) -> None:
    assert len(ids) == EPOCHS * ROWS
    epochs = [ids[i * ROWS : (i + 1) * ROWS] for i in range(EPOCHS)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert epochs[0] != epochs[1]


class Model(torch.nn.Module):
    """Learns x = id / 2, and keeps the ids it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.ids: list[int] = []
        self.losses: list[float] = []

    def forward(self, id: torch.Tensor, x: torch.Tensor, y: torch.Tensor, **_: Any) -> dict[str, Any]:  # noqa: A002
        assert id.shape == x.shape == y.shape
        self.ids += [int(i) for i in id]
        loss = torch.nn.functional.mse_loss(self.linear(id[:, None] / ROWS), x[:, None].float() / ROWS)
        self.losses.append(loss.item())
        return {"loss": loss}

    def check(self) -> None:
        check_each_row_came_once_an_epoch(self.ids)
        assert sum(self.losses[-10:]) < sum(self.losses[:10])


def test_installing_the_trainers_brought_no_other_torch_and_no_cuda() -> None:
    assert torch.__version__.startswith("2.13.0")
    names = {str(found.metadata["Name"]).lower() for found in distributions()}
    assert not [name for name in names if name.startswith(("nvidia", "triton"))]


def test_in_lightning(stream: penstock.Stream, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: penstock.Batch, _: int) -> Any:
            assert batch.metadata.epoch == self.current_epoch
            return self.model(**batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.3)

    module = Module()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet
    )
    trainer.fit(module, loader_of(stream))
    module.model.check()
    assert trainer.num_training_batches == len(stream)
    # And without a DataLoader around it: a stream is a loader.
    module = Module()
    stream.reset()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet
    )
    trainer.fit(module, stream)
    module.model.check()


def test_in_accelerate(stream: penstock.Stream) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader_of(stream))
    assert len(loader) == len(stream)
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()
    model.check()


@pytest.mark.parametrize("way", ["as its loader", "as its dataset"])
def test_in_the_hugging_face_trainer(stream: penstock.Stream, tmp_path: Path, way: str) -> None:
    transformers = pytest.importorskip("transformers")

    class StreamTrainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return stream

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        # Batches come whole from the server: a trainer that batches by itself takes one of them at a time.
        per_device_train_batch_size=1,
        learning_rate=0.1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = Model()
    kinds: dict[str, Any] = {"as its loader": StreamTrainer, "as its dataset": transformers.Trainer}
    trainer = kinds[way](
        model=model,
        args=arguments,
        train_dataset=stream.as_dataset(),
        data_collator=lambda batches: dict(batches[0]),
    )
    result = trainer.train()
    assert result.global_step == EPOCHS * len(stream)
    model.check()
