"""A trainer in a process of its own, that does what a test tells it, one word at a time."""

import json
import subprocess
import sys
from typing import Any, Self

SCRIPT = """
import ctypes, json, os, sys
import penstock

wish = json.loads(sys.argv[1])
client = penstock.connect(wish["target"], job=wish["job"])
streams = []

def new(**more):
    streams.append(client.stream(wish["dataset"], output="numpy", **{**wish["stream"], **more}))
    return None

def step():
    return streams[-1].get_batch()["id"].tolist()

def rest():
    return [batch["id"].tolist() for batch in streams[-1].resume()]

def hold(seconds):
    # PyDLL keeps the interpreter's lock during the call: no other Python thread runs.
    ctypes.PyDLL(None).sleep(seconds)

words = {
    "new": new, "step": step, "rest": rest, "hold": hold,
    "length": lambda: len(streams[-1]),
    "state": lambda: streams[-1].state_dict(),
    "load": lambda state: streams[-1].load_state_dict(state),
    "close": lambda: streams[-1].close(),
    "reconnects": lambda: streams[-1].profile()["reconnects"],
    "older": lambda: streams[0].get_batch()["id"].tolist(),
}
new()
for line in sys.stdin:
    word, arguments, options = json.loads(line)
    try:
        answer = {"said": words[word](*arguments, **options)}
    except penstock.PenstockError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Refused(AssertionError):
    """The word ended with an error of penstock: its type and text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Trainer:
    """One process with one stream object at first; `new` makes another. A context manager: killed at the end."""

    def __init__(self, target: str, dataset: str, job: str | None = None, **stream: Any) -> None:
        wish = json.dumps({"target": target, "dataset": dataset, "job": job, "stream": stream})
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, wish], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, word: str, *arguments: Any, **options: Any) -> None:
        """Say a word and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([word, arguments, options]) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The answer to the oldest word that was told. Raises Refused."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the trainer ended with {self.process.wait(10)}"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["text"])
        return answer["said"]

    def ask(self, word: str, *arguments: Any, **options: Any) -> Any:
        self.tell(word, *arguments, **options)
        return self.hear()

    def step(self) -> list[int]:
        found: list[int] = self.ask("step")
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
