"""`penstock doctor`: what is wrong with a running server, and what to do about it."""

from dataclasses import asdict

import typer

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.findings import examine
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_json


def doctor(http: Http = None, as_json: Json = False) -> None:
    """What is wrong with a running server, and the cure. Ends with 1 where there is a problem."""
    server = Server(http)
    found = examine(server.facts())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found]})
    elif not found:
        print("nothing is wrong")
    else:
        for finding in found:
            print(f"{finding.severity}: {finding.what}\n    {finding.cure}")
    if any(finding.severity == "problem" for finding in found):
        raise typer.Exit(1)
