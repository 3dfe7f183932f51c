import json
import os
import re
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock import identity
from penstock.errors import InvalidRequest
from penstock.world import Job, World, detect_job, detect_world, fresh_job

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}
PMI = {"PMI_RANK": "4", "PMI_SIZE": "5"}
MLX = {"MLX_RANK": "5", "MLX_WORLD_SIZE": "6"}
STEP = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": "6", "SLURM_NTASKS": "7"}
BATCH_SCRIPT = STEP | {"SLURM_STEP_ID": str(0xFFFFFFFB)}


@pytest.mark.parametrize(
    ("env", "rank", "world_size", "origin"),
    [
        ({}, 0, 1, "default"),
        (TORCHRUN, 1, 4, "torchrun: RANK, WORLD_SIZE"),
        (OPEN_MPI, 2, 3, "Open MPI"),
        (PMI, 4, 5, "PMI"),
        (MLX, 5, 6, "mlx.launch"),
        (STEP, 6, 7, "SLURM step: SLURM_PROCID, SLURM_NTASKS"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "8"}, 6, 8, "SLURM_STEP_NUM_TASKS"),
        (BATCH_SCRIPT, 0, 1, "default"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "7"}, 0, 1, "default"),
        (STEP | TORCHRUN, 1, 4, "torchrun"),
        (STEP | OPEN_MPI, 2, 3, "Open MPI"),
    ],
)
def test_the_innermost_launcher_says_who_we_are(env: dict[str, str], rank: int, world_size: int, origin: str) -> None:
    world = detect_world(env=env)
    assert (world.rank, world.world_size) == (rank, world_size)
    assert origin in world.origin
    assert str(world) == f"rank {rank} of {world_size} ({world.origin})"


def test_arguments_win() -> None:
    assert detect_world(2, 3, env=TORCHRUN) == World(2, 3, "arguments")


@pytest.mark.parametrize("name", ["MLX_HOSTFILE", "MLX_IBV_DEVICES"])
def test_mlx_launch_lists_its_hosts_in_a_file(tmp_path: Path, name: str) -> None:
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([["127.0.0.1:32323"], ["127.0.0.1:32324"]]))
    assert detect_world(env={"MLX_RANK": "1", name: str(hosts)}) == World(1, 2, f"mlx.launch: MLX_RANK, {name}")
    hosts.write_text("\n")  # what it writes for one host
    assert detect_world(env={"MLX_RANK": "0", name: str(hosts)}).world_size == 1


@pytest.mark.parametrize("text", ['{"a": 1}', "not json", None])
def test_a_host_file_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    hosts = tmp_path / "hosts.json"
    if text is not None:
        hosts.write_text(text)
    with pytest.raises(InvalidRequest, match=re.escape(str(hosts))):
        detect_world(env={"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)})


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ((3, 3), {}, "rank=3 with world_size=3 (arguments): rank must be 0 to 2"),
        ((-1, 3), {}, "rank=-1 with world_size=3 (arguments)"),
        ((0, 0), {}, "world_size=0 (arguments): must be at least 1"),
        ((1, None), {}, "rank=1, world_size=None (arguments): give both"),
        ((None, 2), {}, "rank=None, world_size=2 (arguments): give both"),
        ((None, None), {"RANK": "4", "WORLD_SIZE": "4"}, "rank=4 with world_size=4 (torchrun: RANK, WORLD_SIZE)"),
        ((None, None), {"RANK": "0"}, "RANK='0' is set but WORLD_SIZE is not (torchrun)"),
        ((None, None), {"PMI_SIZE": "2"}, "PMI_SIZE='2' is set but PMI_RANK is not (PMI)"),
        ((None, None), {"RANK": "one", "WORLD_SIZE": "4"}, "RANK='one' (torchrun): must be a whole number"),
        ((None, None), {"MLX_RANK": "0"}, "MLX_RANK='0' is set but MLX_WORLD_SIZE is not (mlx.launch)"),
    ],
)
def test_bad_input_is_refused_with_values_and_origin(
    arguments: tuple[int | None, int | None], env: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        detect_world(*arguments, env=env)


def test_torch_distributed_is_asked_where_it_is_initialised() -> None:
    # In a process of its own: a process group is global.
    script = """
import os
os.environ["RANK"], os.environ["WORLD_SIZE"] = "0", "9"
from penstock.world import detect_world
import sys
assert "torch" not in sys.modules
assert detect_world().origin.startswith("torchrun")
import torch.distributed as dist
assert detect_world().origin.startswith("torchrun")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
print(detect_world())
dist.destroy_process_group()
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "rank 0 of 1 (torch.distributed)"


RUN = TORCHRUN | {"TORCHELASTIC_RUN_ID": "abc", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"}


def test_a_job_is_what_the_user_says() -> None:
    assert detect_job("mine", env=RUN) == Job("mine", "argument")
    with pytest.raises(InvalidRequest, match="job='': must not be empty"):
        detect_job("")


def test_the_ranks_of_a_torchrun_share_a_job_on_every_host() -> None:
    assert detect_job(env=RUN).id == "torchrun:abc@node7:29500"
    nobody_chose = RUN | {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8"}
    assert detect_job(env=nobody_chose).id == "torchrun:none@node7:29500"


@pytest.mark.parametrize(
    "env",
    [RUN | {"MASTER_ADDR": "127.0.0.1"}, RUN | {"MASTER_ADDR": "localhost"}, RUN | {"TORCHELASTIC_RUN_ID": "none"}],
)
def test_what_two_hosts_could_both_have_is_made_unique_by_the_host(env: dict[str, str]) -> None:
    assert detect_job(env=env).id.endswith("/" + os.uname().nodename)


@pytest.mark.parametrize(
    ("env", "job"),
    [
        (STEP, "slurm::77.0"),
        (STEP | {"SLURM_CLUSTER_NAME": "big"}, "slurm:big:77.0"),
        (OPEN_MPI | {"PMIX_NAMESPACE": "prterun-a-1@1"}, "mpi:prterun-a-1@1"),
        (STEP | OPEN_MPI | {"OMPI_MCA_ess_base_jobid": "12"}, "mpi:12"),
    ],
)
def test_other_launchers_have_job_ids(env: dict[str, str], job: str) -> None:
    assert detect_job(env=env).id == job


def test_without_a_launcher_a_process_is_a_job_of_its_own() -> None:
    here = detect_job(env={})
    assert detect_job(env=BATCH_SCRIPT) == here
    code = "from penstock.world import detect_job; print(detect_job(env={}).id)"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert there != here.id
    assert len(there) == len(here.id) == 32


def test_threads_that_ask_at_once_are_one_process_and_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(range(100))
    both = threading.Barrier(2, timeout=30)

    def drawn() -> SimpleNamespace:
        number = next(ids)
        both.wait()  # each thread has found nothing yet
        return SimpleNamespace(hex=str(number))

    monkeypatch.setattr(uuid, "uuid4", drawn)
    monkeypatch.setattr("penstock.world._jobs", {})
    monkeypatch.setattr("penstock.identity._processes", {})
    for ask in (fresh_job, lambda: identity._process(7)):
        with ThreadPoolExecutor(2) as threads:
            one, other = [task.result(30) for task in [threads.submit(ask) for _ in range(2)]]
        assert one == other
