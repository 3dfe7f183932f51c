"""Penstock, the batches over gRPC, as to another machine whose payload port cannot be reached."""

from functools import partial

from benchmarks.peers import penstock
from benchmarks.peers.penstock import prepare as prepare

loader = partial(penstock.loader, transport="grpc")
