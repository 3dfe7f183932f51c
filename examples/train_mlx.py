"""Trains a small MLX model on handwritten digits that a Penstock server mixes and streams.

penstock serve examples/data/digits examples/data/digits_test
python examples/train_mlx.py [HOST:PORT]          (default: PENSTOCK_TARGET, else 127.0.0.1:7400)
"""

import sys

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
from tqdm import tqdm

import penstock

EPOCHS = 15


def loss_of(model: nn.Module, pixels: mx.array, label: mx.array) -> mx.array:
    """Mean cross entropy of a batch."""
    return nn.losses.cross_entropy(model(pixels / 16), label, reduction="mean")


def main() -> None:
    """Trains, then prints test accuracy, rows/s and who was slow."""
    mx.random.seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optimizers.AdamW(learning_rate=3e-3)
    loss_and_gradients = nn.value_and_grad(model, loss_of)

    with penstock.connect(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        with client.stream("digits", batch_size=32, seed=7, output="mlx") as stream:
            for epoch in range(EPOCHS):
                # A batch is a dict of arrays: pixels float32 [32, 64], label int64 [32], id int64 [32].
                for batch in tqdm(stream, desc=f"mlx, epoch {epoch + 1} of {EPOCHS}", unit="step"):
                    _, gradients = loss_and_gradients(model, batch.pixels, batch.label)
                    optimizer.update(model, gradients)
                    mx.eval(model.parameters(), optimizer.state)
            profile = stream.profile()

        right = rows = 0
        with client.stream("digits_test", batch_size=256, shuffle=False, output="mlx") as test:
            for batch in test:
                right += int((model(batch.pixels / 16).argmax(axis=1) == batch.label).sum().item())
                rows += len(batch.label)

    print(f"mlx: test accuracy {right / rows:.1%} on {rows} digits, {profile['rows_per_s']:,.0f} rows/s")
    print(f"mlx: {profile}")


if __name__ == "__main__":
    main()
