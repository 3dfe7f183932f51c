"""Messages about runs: between the words of runs and protobuf."""

import json
from dataclasses import asdict

from penstock_proto.v1 import control_pb2 as pb
from penstock_service.core.run import Began, RunStatus


def run(status: RunStatus) -> pb.Run:
    return pb.Run(
        id=status.run,
        job=status.job,
        stream=status.stream,
        datasets=status.datasets,
        world_size=status.world_size,
        ranks=status.ranks,
        epoch=status.epoch,
        segment=status.segment,
        head=status.head,
        entries=json.dumps(status.entries),
    )


def began(change: Began) -> pb.Began:
    return pb.Began(**asdict(change))
