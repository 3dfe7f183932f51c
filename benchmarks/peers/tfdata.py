"""tf.data service: TFRecord files, a dispatcher and a worker in a process of their own, batches as tensors."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import torch

from benchmarks.rows import FEATURES, TOKENS, Case

SERVICE = tf.data.experimental.service
BYTES = tf.io.FixedLenFeature([], tf.string)
NUMBER = tf.io.FixedLenFeature([], tf.int64)
FEATURES_OF = {"tokens": {"tokens": BYTES}, "small": {"x": BYTES, "id": NUMBER, "label": NUMBER}}


def _feature(value: Any) -> Any:
    if value.ndim:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))


def prepare(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    for shard in range(case.shards):
        columns = case.columns(shard)
        with tf.io.TFRecordWriter(str(folder / f"{shard:05}.tfrecord")) as out:
            for row in zip(*columns.values(), strict=True):
                features = {name: _feature(value) for name, value in zip(columns, row, strict=True)}
                out.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def _parse(case: Case) -> Callable[[Any], dict[str, Any]]:
    def parse(records: Any) -> dict[str, Any]:
        found = tf.io.parse_example(records, FEATURES_OF[case.name])
        if case.name == "tokens":
            return {"tokens": tf.reshape(tf.io.decode_raw(found["tokens"], tf.int32), (-1, TOKENS))}
        found["x"] = tf.reshape(tf.io.decode_raw(found["x"], tf.float32), (-1, FEATURES))
        return dict(found)

    return parse


@contextlib.contextmanager
def _service() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.peers.tfdata"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    with _service() as target:
        files = tf.data.Dataset.list_files(str(folder / "*.tfrecord"), shuffle=True)
        records = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        batches = records.shuffle(case.buffer).batch(case.batch).map(_parse(case), tf.data.AUTOTUNE)
        share = SERVICE.distribute(processing_mode=SERVICE.ShardingPolicy.DYNAMIC, service=target)
        served = batches.apply(share).prefetch(tf.data.AUTOTUNE)

        def epoch(_: int) -> Iterator[dict[str, torch.Tensor]]:
            for batch in served:
                yield {name: torch.from_numpy(values.numpy()) for name, values in batch.items()}

        yield epoch


def serve() -> None:
    """The dispatcher and one worker, until stdin ends."""
    dispatcher = SERVICE.DispatchServer()
    address = dispatcher.target.split("://")[1]
    worker = SERVICE.WorkerServer(SERVICE.WorkerConfig(dispatcher_address=address))
    print(dispatcher.target, flush=True)
    sys.stdin.read()
    del worker


if __name__ == "__main__":
    serve()
