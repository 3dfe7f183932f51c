"""Which rank this process is, of how many, and which job it belongs to: found out once, with where it was found.

A launcher may run inside another one: `torchrun` or `mpirun` inside a SLURM step, where SLURM started one launcher per
node and counts those. So the innermost launcher is asked first and SLURM last.
"""

import json
import os
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.arguments import text, whole
from penstock.errors import InvalidRequest

Env = Mapping[str, str]

# SLURM numbers steps that nobody started with srun from the top of 32 bits down: batch script, extern, interactive.
_FIRST_SPECIAL_STEP: Final = 0xFFFFFFF0
_jobs: dict[int, str] = {}  # of each process
_ANY: Final = -(1 << 63)  # what it must be is said together
FRESH: Final = "fresh: no launcher found"  # origin of a job that is this process alone
_LOOPBACK: Final = ("127.", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True)
class World:
    """This process is `rank` of `world_size` data-parallel ranks; `origin` says who said so."""

    rank: int
    world_size: int
    origin: str

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise InvalidRequest(f"world_size={self.world_size} ({self.origin}): must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise InvalidRequest(
                f"rank={self.rank} with world_size={self.world_size} ({self.origin}): "
                f"rank must be 0 to {self.world_size - 1}"
            )

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Job:
    """Which ranks belong together: the server fences by it. `origin` says where the id comes from."""

    id: str
    origin: str

    def __str__(self) -> str:
        return f"job {self.id} ({self.origin})"


def detect_world(rank: int | None = None, world_size: int | None = None, env: Env | None = None) -> World:
    """Rank and world size from the arguments, else torch.distributed, else the launcher's variables, else 0 of 1.

    Launchers in this order: torchrun (RANK, WORLD_SIZE), Open MPI, PMI (MPICH, Intel MPI), mlx.launch, SLURM (only
    inside a step made by srun). torch.distributed counts only where torch is imported and initialised already.
    `env` stands for `os.environ`.

    Raises:
        InvalidRequest: rank not in 0 ... world_size - 1; only one of the two given; not a whole number.
    """
    if rank is not None or world_size is not None:
        if rank is None or world_size is None:
            raise InvalidRequest(f"rank={rank}, world_size={world_size} (arguments): give both, or neither")
        return World(whole("rank", rank, _ANY), whole("world_size", world_size, _ANY), "arguments")
    env = os.environ if env is None else env
    for detect in (_from_torch, _from_torchrun, _from_open_mpi, _from_pmi, _from_mlx, _from_slurm):
        found = detect(env)
        if found is not None:
            return found
    return World(0, 1, "default: no launcher found")


def detect_job(explicit: str | None = None, env: Env | None = None) -> Job:
    """The job's id: the argument, else torchrun's, MPI's or SLURM's, else a fresh one for this process.

    torchrun's run id is made unique by the master's address and port, and by this host's name where the address is a
    loopback one, or where nobody chose a run id ("none") and the job runs on one host.

    Raises:
        InvalidRequest: the argument is empty.
    """
    if explicit is not None:
        if not text("job", explicit):
            raise InvalidRequest("job='': must not be empty; leave it out to have it detected")
        return Job(explicit, "argument")
    env = os.environ if env is None else env
    if "TORCHELASTIC_RUN_ID" in env:
        return _torchrun_job(env)
    for name in ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"):
        if env.get(name) and ("OMPI_COMM_WORLD_RANK" in env or "PMI_RANK" in env):
            return Job(f"mpi:{env[name]}", f"MPI: {name}")
    if _slurm_step(env) is not None and env.get("SLURM_JOB_ID"):
        cluster = env.get("SLURM_CLUSTER_NAME", "")
        return Job(f"slurm:{cluster}:{env['SLURM_JOB_ID']}.{env['SLURM_STEP_ID']}", "SLURM job and step")
    return fresh_job()


def fresh_job() -> Job:
    """A job of this process alone."""
    return Job(_fresh_id(os.getpid()), FRESH)


def _from_torch(_env: Env) -> World | None:
    # Looked up, never imported: a job without torch must not pay for it, and an import could not be initialised.
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return World(distributed.get_rank(), distributed.get_world_size(), "torch.distributed")


def _from_torchrun(env: Env) -> World | None:
    return _pair(env, "torchrun", "RANK", "WORLD_SIZE")


def _from_open_mpi(env: Env) -> World | None:
    return _pair(env, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


def _from_pmi(env: Env) -> World | None:
    return _pair(env, "PMI", "PMI_RANK", "PMI_SIZE")


def _from_mlx(env: Env) -> World | None:
    """mlx.launch sets MLX_RANK always, MLX_WORLD_SIZE for NCCL only; the other backends get a file that lists hosts."""
    if "MLX_RANK" not in env or "MLX_WORLD_SIZE" in env:
        return _pair(env, "mlx.launch", "MLX_RANK", "MLX_WORLD_SIZE")
    for name in ("MLX_HOSTFILE", "MLX_IBV_DEVICES"):
        if name in env:
            rank = _number(env, "mlx.launch", "MLX_RANK")
            return World(rank, _hosts_listed(name, env[name]), f"mlx.launch: MLX_RANK, {name}")
    return _pair(env, "mlx.launch", "MLX_RANK", "MLX_WORLD_SIZE")


def _from_slurm(env: Env) -> World | None:
    if _slurm_step(env) is None:
        return None
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    return _pair(env, "SLURM step", "SLURM_PROCID", size)


def _slurm_step(env: Env) -> int | None:
    """The number of the srun step this process is in. A batch script has SLURM_PROCID too, and is no rank."""
    step = env.get("SLURM_STEP_ID", "")
    return int(step) if step.isdigit() and int(step) < _FIRST_SPECIAL_STEP else None


def _pair(env: Env, launcher: str, rank: str, size: str) -> World | None:
    if rank not in env and size not in env:
        return None
    for present, absent in ((rank, size), (size, rank)):
        if absent not in env:
            raise InvalidRequest(
                f"{present}={env[present]!r} is set but {absent} is not ({launcher}): "
                f"set both, unset {present}, or pass rank= and world_size="
            )
    return World(_number(env, launcher, rank), _number(env, launcher, size), f"{launcher}: {rank}, {size}")


def _number(env: Env, launcher: str, name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise InvalidRequest(f"{name}={env[name]!r} ({launcher}): must be a whole number") from None


def _hosts_listed(name: str, path: str) -> int:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
        # mlx.launch leaves the file empty where there is one host.
        hosts = json.loads(text) if text else [None]
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{name}={path!r} (mlx.launch) cannot be read ({error}): pass rank= and world_size="
        ) from error
    if not isinstance(hosts, list):
        raise InvalidRequest(f"{name}={path!r} (mlx.launch) holds no list of hosts: pass rank= and world_size=")
    return len(hosts)


def _torchrun_job(env: Env) -> Job:
    run = env["TORCHELASTIC_RUN_ID"]
    address = env.get("MASTER_ADDR", "")
    one_host = env.get("LOCAL_WORLD_SIZE") == env.get("WORLD_SIZE")
    parts = [f"torchrun:{run}@{address}:{env.get('MASTER_PORT', '')}"]
    # With several hosts every rank must come to the same id, so a host's name may not enter it.
    if address.startswith(_LOOPBACK) or (run == "none" and one_host):
        parts.append(socket.gethostname())
    return Job("/".join(parts), "torchrun: TORCHELASTIC_RUN_ID, MASTER_ADDR, MASTER_PORT")


def _fresh_id(pid: int) -> str:
    """Keyed by process id, so that a forked child is a job of its own. Threads that ask at once get the same."""
    return _jobs.setdefault(pid, uuid.uuid4().hex)
