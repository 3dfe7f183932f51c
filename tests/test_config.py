import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from penstock_service.config import Settings
from penstock_service.config.addresses import DatasetArgument, host_and_port, is_loopback
from penstock_service.config.load import SettingsError, load, show
from penstock_service.config.machine import (
    MEMORY,
    STORE_MOST,
    cache_home,
    container_cpus,
    container_memory,
    default_memory,
    default_store_bytes,
    state_home,
    usable_cpus,
)
from penstock_service.config.sizes import parse_size, show_size


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PENSTOCK"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (16777216, 16777216),
        ("512MiB", 512 * 1024**2),
        ("512 mib", 512 * 1024**2),
        ("5GB", 5_000_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("3kB", 3000),
        ("2TiB", 2 * 1024**4),
        ("7B", 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5G", "5Gi", "", "MiB", "-1", -1, "1e9", True, 1.5, None, "1,5GB"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="a size is a number of bytes, or a number with B, kB, MB"):
        parse_size(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1536, 5_000_000_000, 3 * 1024**3, 21093665792])
def test_a_size_that_is_shown_can_be_read_back(size: int) -> None:
    assert parse_size(show_size(size)) == size


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("grpc: 0.0.0.0:1\nhttp: 0.0.0.0:2\nworkers: 3\nread_ahead_bytes: 64MiB\n")
    monkeypatch.setenv("PENSTOCK_CONFIG", str(file))
    monkeypatch.setenv("PENSTOCK__GRPC", "0.0.0.0:10")
    monkeypatch.setenv("PENSTOCK__WORKERS", "30")
    loaded = load({"workers": "300"})
    settings = loaded.settings
    assert (settings.workers, settings.grpc, settings.http) == (300, "0.0.0.0:10", "0.0.0.0:2")
    assert (settings.read_ahead_bytes, settings.chunk_bytes) == (64 * 1024**2, 16 * 1024**2)
    assert [loaded.origins[n] for n in ("workers", "grpc", "http", "chunk_bytes")] == [
        "--workers",
        "PENSTOCK__GRPC",
        str(file),
        "default",
    ]


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("auto", "auto"), ("7402", 7402), ("'7402'", 7402)])
def test_the_payload_port_in_a_file(tmp_path: Path, text: str, value: object) -> None:
    """YAML makes a bool of off."""
    (tmp_path / "penstock.yaml").write_text(f"payload: {text}")
    assert load({}, tmp_path / "penstock.yaml").settings.payload == value


def test_a_named_file_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "absent.yaml"))
    (tmp_path / "b.yaml").write_text("workers: 5")
    assert load({}, tmp_path / "b.yaml").settings.workers == 5


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK__GRPC", "")
    assert load({}).settings.grpc == "127.0.0.1:7400"


@pytest.mark.parametrize("text", ["a=x.csv,y", '["a=x.csv", "y"]', " a=x.csv , y,"])
def test_one_variable_holds_several_datasets(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK__DATASETS", text)
    assert load({}).settings.datasets == ("a=x.csv", "y")


def test_the_commas_of_shard_ranges_stand_between_no_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK__DATASETS", "a=x#0-9,12, 20- ,b=y,2024,c#7")
    assert load({}).settings.datasets == ("a=x#0-9,12, 20- ", "b=y", "2024", "c#7")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"memory": "5G"}, "memory = '5G' (from --memory) is refused: a size is a number of bytes, or"),
        (
            {"memory": "1MB"},
            "memory = '1MB' (from --memory) is refused: it must be at least 64MiB",
        ),
        ({"workers": "0"}, "workers = '0' (from --workers) is refused: it must be auto, or a whole number from 1"),
        ({"workers": "two"}, "workers = 'two' (from --workers) is refused: it must be auto, or a whole number from 1"),
        (
            {"workers": "1025"},
            "workers = '1025' (from --workers) is refused: it must be auto, or a whole number from 1",
        ),
        (
            {"payload": "0"},
            "payload = '0' (from --payload) is refused: it must be auto, off, or a port from 1 to 65535",
        ),
        ({"payload": "65536"}, "is refused: it must be auto, off, or a port from 1 to 65535"),
        ({"payload": "on"}, "is refused: it must be auto, off, or a port from 1 to 65535"),
        ({"payload": "7400"}, "payload and grpc are both port 7400; they need two ports"),
        ({"payload_advertise": "gateway"}, "is refused: an address is HOST:PORT"),
        ({"payload_advertise": "gateway:0"}, "is refused: clients cannot connect to port 0"),
        ({"payload_advertise": "gateway:1", "payload": "off"}, "payload_advertise is gateway:1, but payload is off"),
        ({"read_ahead_bytes": "1KiB"}, "is refused: it must be auto, or at least 1MiB"),
        ({"read_ahead_bytes": "much"}, "is refused: auto, or a size; a size is a number of bytes, or a number with B"),
        (
            {"worker_kind": "fast"},
            "worker_kind = 'fast' (from --worker-kind) is refused: input should be 'auto', 'thre",
        ),
        (
            {"grpc": "7400"},
            "grpc = '7400' (from --grpc) is refused: an address is HOST:PORT with a port from 0 to 65535",
        ),
        (
            {"refill_below": "0.99"},
            "refill_below = '0.99' (from --refill-below) is refused: it must be at most 0.98",
        ),
        ({"grace": "-1"}, "grace = '-1' (from --grace) is refused: it must be at least 0"),
        ({"log_level": "loud"}, "log_level = 'loud' (from --log-level) is refused: input should be 'debug', 'info'"),
        ({"datasets": [" "]}, "is refused: a dataset is [NAME=]PATH, such as data/ or titanic=data/titanic.csv"),
        ({"datasets": "[a"}, "is refused: this begins like a JSON list of [NAME=]PATH but is none"),
        ({"http": "127.0.0.1:7400"}, "grpc and http are both 127.0.0.1:7400; they need two ports"),
        ({"state_dir": "/x", "store_dir": "/x"}, "state_dir and store_dir are both /x; the store may be deleted"),
    ],
)
def test_a_refused_value_is_named_with_its_field_its_origin_and_what_is_allowed(
    flags: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(flags)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_refused_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK__CHUNK_ROWS", "-3")
    with pytest.raises(SettingsError) as refused:
        load({"store_dir": 5, "frame_bytes": "1GiB"})
    assert [line.split(")")[0] for line in str(refused.value).splitlines()] == [
        "store_dir = 5 (from --store-dir",
        "chunk_rows = '-3' (from PENSTOCK__CHUNK_ROWS",
        "frame_bytes = '1GiB' (from --frame-bytes",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("read_ahead: 1", "unknown setting 'read_ahead'; did you mean read_ahead_bytes?"),
        ("state-dir: /x", "unknown setting 'state-dir'; did you mean state_dir?"),
        ("zzzzz: 1", "unknown setting 'zzzzz'; `penstock config show` lists all settings"),
        ("- a\n- b", "holds a list; it needs `setting: value` lines"),
        ("a: [", "is not YAML: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        load({}, file)
    assert str(file) in str(refused.value)
    assert message in str(refused.value)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert set(load({}, tmp_path / "c.yaml").origins.values()) == {"default"}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no config file /none/c\.yaml"):
        load({}, Path("/none/c.yaml"))
    with pytest.raises(SettingsError, match=r"cannot be read: .*Is a directory"):
        load({}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "warning"),
    [
        ("PENSTOCK__WORKER", "PENSTOCK__WORKER is no setting and has no effect; did you mean PENSTOCK__WORKERS?"),
        ("PENSTOCK__ZZZ", "PENSTOCK__ZZZ is no setting and has no effect; `penstock config show` lists all settings"),
        ("PENSTOCK_GRPC", "PENSTOCK_GRPC has no effect; did you mean PENSTOCK__GRPC?"),
    ],
)
def test_variables_without_effect_are_warned_of(variable: str, warning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "x")
    assert load({}).warnings == (f"the environment variable {warning}",)


@pytest.mark.parametrize("variable", ["PENSTOCK_HTTP", "PENSTOCK_TARGET", "PENSTOCK__LOG_LEVEL", "PENSTOCKING"])
def test_other_variables_are_left_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "info")
    assert load({}).warnings == ()


def test_settings_made_by_hand_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK__WORKERS", "77")
    settings = Settings(datasets=("data",), workers=2)
    assert settings.workers == 2
    assert Settings().workers != 77
    with pytest.raises(ValidationError, match="frozen"):
        settings.workers = 3


def test_folders_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    settings = load({"state_dir": "state", "store_dir": "~/store"}).settings
    assert (settings.state_dir, settings.store_dir) == (tmp_path / "state", Path("/home/me/store"))


def test_values_are_shown_as_they_are_written() -> None:
    assert show("chunk_bytes", 16 * 1024**2) == "16MiB"
    assert show("chunk_rows", 1024) == "1024"
    assert show("datasets", ("a=x", "y")) == "a=x y"


def test_homes_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert state_home({}) == Path("/home/me/.local/state/penstock")
    assert state_home({"XDG_STATE_HOME": "/s"}) == Path("/s/penstock")
    assert cache_home({"XDG_CACHE_HOME": "relative is ignored"}) == Path("/home/me/.cache/penstock")


def test_memory_is_5_gb_or_the_containers_limit() -> None:
    assert default_memory(None) == MEMORY == 5_000_000_000
    assert default_memory(10**9) == 9 * 10**8  # at the limit itself the kernel kills
    assert default_memory(10**12) == MEMORY


def cgroup(tmp_path: Path, own: str, **limits: str) -> int | None:
    """Lays out a /sys/fs/cgroup with those limits ("/" in a path written as "__")."""
    for path, limit in limits.items():
        file = tmp_path / "cgroup" / path.replace("__", "/")
        file = file.parent / file.name.replace("_max", ".max").replace("_limit", ".limit")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit)
    (tmp_path / "own").write_text(own)
    return container_memory(tmp_path / "cgroup", tmp_path / "own")


def test_no_limit_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert container_memory(tmp_path, tmp_path / "absent") is None


def test_cgroup_v2_in_a_container(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/\n", memory_max="2147483648\n") == 2 << 30


def test_cgroup_v2_unlimited(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/\n", memory_max="max\n") is None


def test_cgroup_v2_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    limits = {"a__memory_max": "3000000", "a__b__memory_max": "max"}
    assert cgroup(tmp_path, "0::/a/b\n", **limits) == 3_000_000


def test_cgroup_v1(tmp_path: Path) -> None:
    own = "9:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"
    assert cgroup(tmp_path, own, memory__memory_limit_in_bytes="1000000000") == 10**9


def test_cgroup_v1_unlimited(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "4:memory:/\n", memory__memory_limit_in_bytes="9223372036854771712") is None


def test_the_store_takes_a_quarter_of_the_free_disk(tmp_path: Path) -> None:
    size = default_store_bytes(tmp_path / "not" / "yet")
    assert 0 < size <= STORE_MOST


def test_there_is_at_least_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus(None) >= 1
    assert usable_cpus(0.5) == 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cpus(None) >= 1
    assert usable_cpus(1e9) == usable_cpus(None)


@pytest.mark.parametrize(
    ("own", "limits", "cpus"),
    [
        ("0::/a/b\n", {"a": "150000 100000", "a/b": "max 100000"}, 1.5),
        ("0::/a\n", {"a": "400000 100000", ".": "200000 100000"}, 2.0),
        ("0::/\n", {".": "max 100000"}, None),
        ("4:memory:/x\n", {}, None),
        ("0::/gone/in/this/container\n", {".": "50000 100000"}, 0.5),
    ],
)
def test_a_container_gives_so_many_cpus(tmp_path: Path, own: str, limits: dict[str, str], cpus: float | None) -> None:
    (tmp_path / "own").write_text(own)
    for folder, text in limits.items():
        (tmp_path / "fs" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / folder / "cpu.max").write_text(text + "\n")
    assert container_cpus(tmp_path / "fs", tmp_path / "own") == cpus
    assert container_cpus(tmp_path / "fs", tmp_path / "not there") is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:7400", ("127.0.0.1", 7400)), ("[::1]:0", ("::1", 0)), ("my-host.lan:65535", ("my-host.lan", 65535))],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port(text) == parts


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:65536", "::1:80", "http://h:1", "h:1/", "h:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="an address is HOST:PORT"):
        host_and_port(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST.", "a.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::", "", "8.8.8.8", "localhost.example", "example"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_dataset_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "year=2024").mkdir()
    assert DatasetArgument.parse("a=data/x.csv") == DatasetArgument("data/x.csv", "a")
    assert DatasetArgument.parse("data/*.csv") == DatasetArgument("data/*.csv")
    assert DatasetArgument.parse("./year=2023") == DatasetArgument("./year=2023")
    assert DatasetArgument.parse("year=2023") == DatasetArgument("2023", "year")
    assert DatasetArgument.parse("year=2024") == DatasetArgument("year=2024")
    assert Settings(datasets=("a=x",)).dataset_arguments == (DatasetArgument("x", "a"),)
