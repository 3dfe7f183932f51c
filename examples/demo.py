"""What `make demo` runs: a server on real data, two trainers that learn from it, its metrics, and a clean end."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
DATA = [HERE / "data" / name for name in ("digits", "digits_test", "breast_cancer.csv")]
READY_WITHIN, TRAINED_WITHIN, STOPPED_WITHIN = 60.0, 180.0, 20.0  # seconds
WANTED_ACCURACY = 95.0  # percent
READY = re.compile(r"penstock ready grpc=(\S+) http=(\S+)")


class DemoError(Exception):
    """What went wrong, in a sentence."""


def main() -> int:
    """Runs the demo; 0 when all of it went well."""
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
            with server(Path(folder)) as (grpc, http):
                train("train_torch.py", grpc)
                train("train_mlx.py", grpc)
                show_metrics(http)
            print("== the server stopped cleanly and left nothing behind")
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; the server was stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """A running server as (grpc, http) addresses; stopped at the end, and checked for how it stopped."""
    flags = ["--grpc=127.0.0.1:0", "--http=127.0.0.1:0", f"--state-dir={folder}/state", f"--store-dir={folder}/store"]
    command = [sys.executable, "-m", "penstock_service", "serve", *map(str, DATA), *flags]
    shown = " ".join(os.path.relpath(path) for path in DATA)
    print(f"== penstock serve {shown}", flush=True)
    log = folder / "server.log"
    with log.open("wb") as errors:
        # A session of its own: whatever it starts can be counted at the end, and Ctrl-C reaches us first.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
    try:
        yield wait_until_ready(process)
        stop(process)
    except DemoError as error:
        raise DemoError(f"{error}. The end of the server's log:\n{tail(log)}") from error
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Reads the server's output up to the line that says where it listens."""
    found: list[tuple[str, str]] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:  # to the end, so that the pipe never fills up
            match = READY.search(line)
            if match is not None:
                found.append((match[1], match[2]))
                ready.set()
        ready.set()  # it ended

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(READY_WITHIN):
        raise DemoError(f"the server was not ready after {READY_WITHIN:.0f} s")
    if not found:
        raise DemoError(f"the server ended with code {process.wait(STOPPED_WITHIN)}")
    return found[0]


def train(script: str, grpc: str) -> None:
    """Runs an example as a user would, and checks what it learned."""
    print(f"== python examples/{script} {grpc}", flush=True)
    command = [sys.executable, str(HERE / script), grpc]
    try:
        # The progress bar goes to stderr and is seen at once.
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TRAINED_WITHIN, check=False)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"{script} took more than {TRAINED_WITHIN:.0f} s") from error
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise DemoError(f"{script} ended with code {done.returncode}; what it said stands above")
    accuracy = re.search(r"test accuracy ([\d.]+)%", done.stdout)
    if accuracy is None or float(accuracy[1]) < WANTED_ACCURACY:
        raise DemoError(f"{script} should reach a test accuracy of {WANTED_ACCURACY}%")


def show_metrics(http: str) -> None:
    """Says where the metrics are and shows the first numbers that are not 0."""
    url = f"http://{http}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise DemoError(f"{url} cannot be read: {error}") from error
    counted = [line for line in lines if re.match(r"penstock_\w*(rows|steps|bytes)\w*_total\b.* (?!0(\.0)?$)", line)]
    if not counted:
        raise DemoError(f"{url} counts no rows, steps or bytes")
    print(f"== {url} (and /livez, /readyz, /openapi.json beside it), for example:")
    print("\n".join(counted[:3]))


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and nothing may be left of it."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"the server did not stop within {STOPPED_WITHIN:.0f} s") from error
    if code:
        raise DemoError(f"the server stopped with code {code}")
    end = time.monotonic() + 2  # whoever it started may take a moment to be reaped
    while is_alive(process.pid):
        if time.monotonic() > end:
            raise DemoError("the server ended, but processes that it started are still running")
        time.sleep(0.05)


def is_alive(group: int) -> bool:
    """Is any process of that group left?"""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def tail(log: Path) -> str:
    """The last lines of the server's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


if __name__ == "__main__":
    sys.exit(main())
