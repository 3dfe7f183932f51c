"""Trains a small torch model on handwritten digits that a Penstock server mixes and streams.

penstock serve examples/data/digits examples/data/digits_test
python examples/train_torch.py [HOST:PORT]        (default: PENSTOCK_TARGET, else 127.0.0.1:7400)
"""

import sys

import torch
from torch import nn
from tqdm import tqdm

import penstock

EPOCHS = 15


def main() -> None:
    """Trains, then prints test accuracy, rows/s and who was slow."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    with penstock.connect(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        with client.stream("digits", batch_size=32, seed=7) as stream:
            for epoch in range(EPOCHS):
                # A batch is a dict of tensors: pixels float32 [32, 64], label int64 [32], id int64 [32].
                for batch in tqdm(stream, desc=f"torch, epoch {epoch + 1} of {EPOCHS}", unit="step"):
                    loss = nn.functional.cross_entropy(model(batch.pixels / 16), batch.label)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            profile = stream.profile()

        right = rows = 0
        with client.stream("digits_test", batch_size=256, shuffle=False) as test, torch.no_grad():
            for batch in test:
                right += int((model(batch.pixels / 16).argmax(dim=1) == batch.label).sum())
                rows += len(batch.label)

    print(f"torch: test accuracy {right / rows:.1%} on {rows} digits, {profile['rows_per_s']:,.0f} rows/s")
    print(f"torch: {profile}")


if __name__ == "__main__":
    main()
