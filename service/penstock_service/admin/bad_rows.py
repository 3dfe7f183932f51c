"""`penstock bad-rows`: what a running server knows of rows that are errors."""

from typing import Annotated, Any

import typer

from penstock_service.admin.dataset_commands import Http, Json
from penstock_service.admin.remote import Server
from penstock_service.admin.tables import print_bad_rows, print_json


def bad_rows(
    job: Annotated[str, typer.Option(metavar="JOB", help="of this job only")] = "",
    stream: Annotated[str, typer.Option(metavar="NAME", help="of this stream only")] = "",
    most: Annotated[int, typer.Option(metavar="N", help="the latest N")] = 1000,
    http: Http = None,
    as_json: Json = False,
) -> None:
    """Rows that streams met and that are errors: file, line, reason, and what was done about them."""
    found: list[dict[str, Any]] = Server(http).bad_rows(job, stream, most)
    print_json({"rows": found}) if as_json else print_bad_rows(found)
