"""What a look into the folder of datasets found."""

from dataclasses import dataclass
from typing import Literal

ChildState = Literal["new", "new version", "unchanged", "waiting", "refused", "gone"]
"""waiting: it is being written, a later look takes it; gone: its dataset is registered, its files are not there."""


@dataclass(frozen=True, slots=True)
class Child:
    """A file, folder or spec directly in the folder, or a dataset whose data was there before."""

    name: str  # of the dataset; empty where none could be made
    path: str
    state: ChildState
    version: str = ""
    reason: str = ""  # why it waits, was refused, or what is to be done


@dataclass(frozen=True, slots=True)
class Discovery:
    folder: str
    children: tuple[Child, ...]  # by path
