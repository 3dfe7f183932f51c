"""A trainer in a process of its own that takes one batch, keeps it, and then does nothing until it is killed."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

_PROGRAM = """
import sys, time, penstock
stream = penstock.connect(sys.argv[1]).stream("rows", batch_size=10, output="numpy", transport=sys.argv[2])
kept = [next(iter(stream))]
print(stream.profile()["transport"], flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def keeper(target: str, transport: str) -> Iterator[str]:
    """Gives the transport it got; killed with -9 at the end."""
    command = [sys.executable, "-c", _PROGRAM, target, transport]
    trainer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    try:
        yield trainer.stdout.readline().strip()
    finally:
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        trainer.stdout.close()
