"""Writes the data that the examples and tests use. Run once; its output is checked in (see ORIGIN.md).

Needs scikit-learn, which penstock does not: `pip install scikit-learn==1.9.1 pyarrow`, in an environment of its own.
"""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer, load_digits  # type: ignore[import-not-found]

HERE = Path(__file__).parent
SHARDS = 5
ONE_IN = 5  # every fifth image is held out


def main() -> None:
    """Writes digits/, digits_test/ and breast_cancer.csv beside this file."""
    digits()
    breast_cancer()


def digits() -> None:
    """Sorted by label on purpose: read in stored order a model sees one class at a time, so mixing matters."""
    bunch = load_digits()
    ids = np.arange(len(bunch.target))
    held_out = ids % ONE_IN == 0
    train = ids[~held_out]
    train = train[np.argsort(bunch.target[train], kind="stable")]
    for number, part in enumerate(np.array_split(train, SHARDS)):
        write(part, bunch, HERE / "digits" / f"part-{number}.parquet")
    write(ids[held_out], bunch, HERE / "digits_test" / "part-0.parquet")


def write(rows: np.ndarray[tuple[int], np.dtype[np.int64]], bunch: object, path: Path) -> None:
    """One shard: id int64, label int64, pixels float32 [64], each 0 to 16."""
    data, target = bunch.data, bunch.target  # type: ignore[attr-defined]
    pixels = pa.array(data[rows].astype(np.float32).reshape(-1))
    table = pa.table(
        {
            "id": pa.array(rows),
            "label": pa.array(target[rows].astype(np.int64)),
            "pixels": pa.FixedSizeListArray.from_arrays(pixels, 64),
        }
    )
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def breast_cancer() -> None:
    """569 rows: thirty features and `malignant`, 1 or 0."""
    bunch = load_breast_cancer()
    names = [name.replace(" ", "_") for name in bunch.feature_names]
    with (HERE / "breast_cancer.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "malignant"])
        for features, target in zip(bunch.data, bunch.target, strict=True):
            writer.writerow([*(repr(float(value)) for value in features), int(target == 0)])  # scikit-learn: 0


if __name__ == "__main__":
    main()
