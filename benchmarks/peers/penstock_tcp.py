"""Penstock, the batches over a TCP socket of their own, as to another machine."""

from functools import partial

from benchmarks.peers import penstock
from benchmarks.peers.penstock import prepare as prepare

loader = partial(penstock.loader, transport="tcp")
