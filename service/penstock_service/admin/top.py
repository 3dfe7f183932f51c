"""`penstock top`: what a running server does, drawn again and again."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.store_commands import uses
from penstock_service.admin.tables import print_json, print_table, readable_bytes

Facts = Mapping[str, Any]

CLEAR = "\033[H\033[2J"


def top(
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="look once, and end")] = False,
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Store, workers, memory and sessions of a running server, until Ctrl-C."""
    server = Server(http)
    before: Facts | None = None
    try:
        while True:
            began = time.monotonic()
            facts = server.facts()
            if as_json:
                print_json(facts)
            else:
                if not once:
                    print(CLEAR, end="")
                print_top(facts, before, every)
            if once:
                return
            before = facts
            time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        return


def print_top(facts: Facts, before: Facts | None = None, seconds: float = 1.0) -> None:
    """`before`: what was said so many seconds earlier; rates are made of it."""
    load, store = facts["load"], facts["store"]
    memory = ", ".join(f"{readable_bytes(size)} {kind}" for kind, size in load["memory"].items())
    print(f"memory   {memory}; event loop {load['loop_lag_seconds'] * 1000:.0f} ms late at worst")
    print(f"workers  {load['workers']}, {load['chunks_made']:,} chunks made, {load['workers_restarted']} restarted")
    print(f"store    {readable_bytes(store['used'])} of {readable_bytes(store['limit'])}; {uses(store)}")
    ghosts = [g for g in store["ghosts"] if g["policy"] == store["rule"]]
    if ghosts:
        said = ", ".join(f"{g['factor']:g} x the cap {g['hit_ratio']:.1%}" for g in ghosts)
        print(f"         by {store['rule']}, would have hit: {said}")
    for plan in store["preloads"]:
        if plan["state"] in ("waiting", "making"):
            there = plan["there"] + plan["made"]
            print(f"         {plan['why']} {plan['dataset']}: {there:,} of {plan['chunks']:,} chunks")
    sent = f"sent     {load['rows_sent']:,} rows, {readable_bytes(load['bytes_sent'])}"
    if before is not None:
        rows = (load["rows_sent"] - before["load"]["rows_sent"]) / seconds
        size = (load["bytes_sent"] - before["load"]["bytes_sent"]) / seconds
        sent += f"; now {rows:,.0f} rows/s, {readable_bytes(size)}/s"
    print(sent)
    if facts["sessions"]:
        print()
        print_table(
            ("JOB", "STREAM", ">RANK", "BY", "STATE", ">EPOCH", ">STEP", ">ROWS", ">WAITED FOR ROWS", ">FOR CREDIT"),
            [_session(session) for session in facts["sessions"]],
        )
    else:
        print("no sessions")


def _session(session: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *(session["job"], session["name"], f"{session['rank']} of {session['world_size']}"),
        *(session["transport"], session["state"], str(session["epoch"]), f"{session['step']:,}"),
        f"{session['rows_sent']:,}",
        f"{session['seconds_waiting_for_rows']:.1f} s",
        f"{session['seconds_waiting_for_credit']:.1f} s",
    )
