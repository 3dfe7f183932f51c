"""`penstock workers`: how many there are, how far ahead they work, and why."""

from collections.abc import Mapping
from typing import Any

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_json, print_table, readable_bytes


def show_workers(http: Http = None, as_json: Json = False) -> None:
    """The prefetch workers of a running server: how many, how busy, and what was decided about them."""
    found = Server(http).workers()
    print_json(found) if as_json else print_workers(found)


def print_workers(found: Mapping[str, Any]) -> None:
    if found["workers_pinned"]:
        how = "pinned by --workers"
    else:
        how = f"tuned, from {found['least_workers']} to {found['most_workers']} on {found['cpus']} CPUs"
    ahead = "pinned by --read-ahead-bytes" if found["read_ahead_pinned"] else "tuned"
    print(f"{found['workers']} workers ({found['kind']}; {how}), {found['busy']:.1f} of them busy")
    print(f"{readable_bytes(found['read_ahead_bytes'])} of read-ahead ({ahead})")
    print(f"somebody waited for chunks {found['starved']:.0%} of the last second; {found['queued']} tasks are queued")
    print(f"{found['restarted']} workers were replaced, {found['begun_again']} late tasks begun again on another")
    if not found["decisions"]:
        return
    print()
    rows = [(d["at"], d["what"], _amount(d, "before"), _amount(d, "after"), d["reason"]) for d in found["decisions"]]
    print_table(("AT", "WHAT", ">WAS", ">IS", "BECAUSE"), rows)


def _amount(decision: Mapping[str, Any], key: str) -> str:
    return readable_bytes(decision[key]) if decision["what"] == "read-ahead" else str(decision[key])
