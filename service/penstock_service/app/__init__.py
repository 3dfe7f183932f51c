"""Wires the stages: the one place where all of them are known."""
