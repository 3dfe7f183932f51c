"""Does the pool end blockwise learning?

A small classifier is trained for one epoch on rows that lie sorted by class over 100 shards: in stored order, through
the pool (a fifth of the rows), and globally shuffled (the pool holds everything). Accuracy on held-out rows, the swing
of the loss (standard deviation of its per-step change over the second half, relative to the mean loss), rows/s.

    python -m benchmarks.blockwise --repeats 5 --json benchmarks/results/blockwise.json --plot benchmarks/results/blockwise.png
"""  # noqa: E501 - a command line

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import penstock
from benchmarks import harness

CLASSES, FEATURES, SHARDS, ROWS = 10, 32, 100, 200_000
ORDERS: dict[str, dict[str, Any]] = {
    "stored": {"shuffle": False},
    "pool": {"pool_rows": ROWS // 5},
    "global": {"pool_rows": ROWS},
}
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


def rows(count: int, seed: int) -> tuple[F32, I64]:
    """Overlapping clouds around class centres: about 90 % can be told apart."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES)).astype(np.float32)
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, CLASSES, count))
    return (centres[label] + rng.normal(scale=1.9, size=(count, FEATURES))).astype(np.float32), label


def write(folder: Path) -> None:
    folder.mkdir()
    x, label = rows(ROWS, 1)
    each = ROWS // SHARDS
    for shard in range(SHARDS):
        part = slice(shard * each, (shard + 1) * each)
        features = pa.FixedSizeListArray.from_arrays(pa.array(x[part].ravel()), FEATURES)
        pq.write_table(pa.table({"x": features, "label": label[part]}), folder / f"{shard:03}.parquet")


def train(client: penstock.Client, order: str, seed: int) -> tuple[dict[str, Any], list[float]]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    with client.stream("sorted", batch_size=128, seed=seed, **ORDERS[order]) as stream:
        began = time.perf_counter()
        for batch in stream:
            loss = torch.nn.functional.cross_entropy(model(batch.x), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        seconds = time.perf_counter() - began
    x, label = rows(20_000, 2)
    with torch.no_grad():
        accuracy = (model(torch.from_numpy(x)).argmax(1) == torch.from_numpy(label)).float().mean()
    late = np.array(losses[len(losses) // 2 :])
    swing = float(np.abs(np.diff(late)).std() / late.mean())
    return {"accuracy": float(accuracy), "swing": swing, "rows_per_s": ROWS / seconds}, losses


def plot(path: Path, curves: dict[str, list[float]]) -> None:
    import matplotlib as mpl  # only here: the numbers need no plot

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    for order, losses in curves.items():
        axes.plot(losses, label=order, linewidth=0.7)
    axes.set(xlabel="step", ylabel="training loss", title="100 shards sorted by class, one epoch", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, list[dict[str, Any]]] = {order: [] for order in ORDERS}
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        write(folder / "sorted")
        with harness.server(folder, [folder / "sorted"]) as (_, target), penstock.connect(target) as client:
            for repeat in range(options.repeats):
                for order in ORDERS:
                    found, curves[order] = train(client, order, repeat)
                    results[order].append(found)
                    print(repeat, order, found, file=sys.stderr)
    report = harness.report({order: harness.spread(runs) for order, runs in results.items()}, options.repeats)
    print(f"{'order':8} {'accuracy':>9} {'swing':>7} {'rows/s':>10}")
    for order, case in report["cases"].items():
        m = {k: v["median"] for k, v in case.items()}
        print(f"{order:8} {m['accuracy']:9.3f} {m['swing']:7.3f} {m['rows_per_s']:10,.0f}")
    harness.save(options.json, report)
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(options.plot, curves)


if __name__ == "__main__":
    main()
