"""`penstock memory`: who holds the memory of a running server, and what it gives up for it."""

from collections.abc import Mapping
from typing import Any, Final

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_json, print_table, readable_bytes

_HOLDERS_SHOWN: Final = 20


def show_memory(http: Http = None, as_json: Json = False) -> None:
    """The memory of a running server: by stage, dataset, session and process, against its limit."""
    found = Server(http).memory()
    print_json(found) if as_json else print_memory(found)


def print_memory(memory: Mapping[str, Any]) -> None:
    limit, measured = memory["limit"], memory["measured"]
    print(f"{readable_bytes(measured)} of {readable_bytes(limit)} held ({measured / limit:.0%}): {memory['rung']}")
    ahead, most = memory["read_ahead"], memory["read_ahead_most"]
    print(f"made ahead of demand: at most {readable_bytes(ahead)}" + (f" of {readable_bytes(most)}" * (ahead < most)))
    print()
    stages = sorted(memory["stages"].items(), key=lambda found: -found[1])
    print_table(("STAGE", ">HELD", ">OF LIMIT"), [(s, readable_bytes(b), f"{b / limit:.1%}") for s, b in stages])
    whose = [h for h in memory["holders"] if h["dataset"] or h["session"]]
    if whose:
        print()
        rows = [(readable_bytes(h["bytes"]), h["stage"], h["dataset"], h["session"]) for h in whose[:_HOLDERS_SHOWN]]
        print_table((">HELD", "STAGE", "DATASET", "SESSION"), rows)
    if len(whose) > _HOLDERS_SHOWN:
        print(f"and {len(whose) - _HOLDERS_SHOWN} more; --json lists all")
    print()
    processes = [
        (str(p["pid"]), p["what"], readable_bytes(p["anonymous"]), readable_bytes(p["shared"]))
        for p in memory["processes"]
    ]
    print_table((">PROCESS", "", ">ANONYMOUS", ">SHARED"), processes)
