"""The JSON of `/api/v1/memory`."""

from pydantic import BaseModel, Field

from penstock_service.core.holding import MemoryStatus


class Holder(BaseModel):
    stage: str
    bytes: int
    dataset: str = Field(description="NAME@VERSION; several of a mixture with +; empty: for none alone")
    session: str
    process: int = Field(description="id of a worker process; 0: the server")


class Process(BaseModel):
    """Mapped files are in neither number: they belong to the page cache."""

    pid: int
    what: str = Field(description="server or worker")
    anonymous: int
    shared: int


class Memory(BaseModel):
    limit: int = Field(description="--memory")
    measured: int = Field(description="what counts against it")
    rung: str = Field(description="what is given up now: ok, less look-ahead, no segments ahead, no new sessions, stop")
    read_ahead: int = Field(description="bytes of chunks that may be made ahead of demand now")
    read_ahead_most: int = Field(description="the same while memory is not short")
    stages: dict[str, int]
    holders: list[Holder] = Field(description="the largest first")
    processes: list[Process]

    @classmethod
    def of(cls, status: MemoryStatus) -> "Memory":
        return cls(
            limit=status.limit,
            measured=status.measured,
            rung=status.rung,
            read_ahead=status.read_ahead,
            read_ahead_most=status.read_ahead_most,
            stages={str(stage): size for stage, size in status.stages().items()},
            holders=[Holder(**h._asdict()) for h in sorted(status.holdings, key=lambda h: -h.bytes)],
            processes=[Process(**p._asdict()) for p in status.processes],
        )
