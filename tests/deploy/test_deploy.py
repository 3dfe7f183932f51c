"""There is no Docker engine here: the files are checked against each other, the repository and the compose schema.

compose-spec.json is the schema of the Compose Specification (Apache-2.0), as carried by check-jsonschema 0.39.0.
"""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import uvicorn
import yaml
from fastapi import FastAPI

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE))
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word, rest) for word, rest in lines]


def final_stage() -> dict[str, str]:
    """The last value of each instruction of the server's stage."""
    stage: dict[str, str] = {}
    for word, rest in instructions():
        if word == "FROM":
            stage = {}
        stage[word] = rest
    return stage


def compose() -> dict[str, Any]:
    content = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    assert isinstance(content, dict)
    return content


def sources() -> list[str]:
    """What the Dockerfile copies from the build context."""
    copied = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    return [path for words in copied if not words[0].startswith("--from") for path in words[:-1]]


def test_the_compose_file_fits_its_schema() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(compose(), schema)


def test_the_others_wait_until_the_server_is_ready() -> None:
    services = compose()["services"]
    assert "/readyz" in services["server"]["healthcheck"]["test"][-1]
    for other in ("trainer", "prometheus"):
        assert services[other]["depends_on"] == {"server": {"condition": "service_healthy"}}


def test_compose_builds_stages_that_the_dockerfile_has() -> None:
    stages = {rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM"}
    for service in compose()["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_what_compose_mounts_is_there() -> None:
    for service in compose()["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose()["volumes"]


def test_the_server_has_what_the_trainer_asks_for() -> None:
    wanted = set(re.findall(r'client\.stream\("(\w+)"', (ROOT / "examples" / "train_torch.py").read_text()))
    served = compose()["services"]["server"]["command"][1:]
    assert {Path(path).name for path in served} == wanted
    for path in served:
        assert (ROOT / "examples" / path.removeprefix("/")).exists()


def test_prometheus_scrapes_the_port_that_the_server_listens_on() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    http = re.search(r"PENSTOCK__HTTP=\S+:(\d+)", final_stage()["ENV"])
    assert http is not None
    assert job["static_configs"] == [{"targets": [f"server:{http[1]}"]}]
    assert compose()["services"]["trainer"]["environment"]["PENSTOCK_TARGET"] == "server:7400"


def test_every_port_of_the_server_is_pinned_exposed_and_published_under_its_number() -> None:
    variables = dict(word.split("=", 1) for word in final_stage()["ENV"].split() if word.startswith("PENSTOCK__"))
    ports = [variables[f"PENSTOCK__{name}"].rpartition(":")[2] for name in ("GRPC", "HTTP", "PAYLOAD")]
    assert final_stage()["EXPOSE"].split() == ports
    assert compose()["services"]["server"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]


def test_the_container_outlives_the_servers_grace() -> None:
    from penstock_service.config import Settings

    assert int(compose()["services"]["server"]["stop_grace_period"].removesuffix("s")) > Settings().grace


def test_the_image_runs_as_nobody_special_and_gets_its_signals() -> None:
    stage = final_stage()
    assert stage["FROM"].endswith(" AS server")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage["USER"])
    assert json.loads(stage["ENTRYPOINT"]) == ["penstock"]
    assert json.loads(stage["CMD"]) == ["serve", "/data"]
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_the_images_variables_are_settings() -> None:
    from penstock_service.config import Settings

    names = re.findall(r"PENSTOCK__(\w+)=", final_stage()["ENV"])
    assert len(names) == 5
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert set(sources()) == let_in
    for path in sources():
        assert (ROOT / path).exists(), f"the Dockerfile copies {path}"


def health_probe(port: int) -> int:
    command = json.loads(final_stage()["HEALTHCHECK"].split("CMD ", 1)[1])
    assert command[:2] == ["python", "-c"]
    code = command[2].replace(":7401/", f":{port}/")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30).returncode


def test_the_health_check_tells_a_live_server_from_none() -> None:
    http = FastAPI()
    http.get("/livez")(lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(http, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        assert health_probe(port) == 0
        server.should_exit = True
        thread.join()
    assert health_probe(port) != 0


@pytest.mark.examples
@pytest.mark.timeout(900)
def test_the_dockerfiles_install_works_in_a_clean_environment(tmp_path: Path) -> None:
    """The build stage's commands by hand, in a copy that holds what the image would."""
    source, environment = tmp_path / "src", tmp_path / "penstock"
    source.mkdir()
    for path in sources():
        if "/" not in path:
            copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
            copy(ROOT / path, source / path)
    (stage,) = [rest for word, rest in instructions() if word == "RUN" and ".[service]" in rest]
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    command = stage.replace("/opt/penstock", str(environment))
    subprocess.run(shlex.split(command), cwd=source, check=True)
    shown = subprocess.run([environment / "bin" / "penstock", "version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("penstock ")
    served = subprocess.run([environment / "bin" / "penstock", "serve", "--help"], capture_output=True, check=True)
    assert b"--store-bytes" in served.stdout
