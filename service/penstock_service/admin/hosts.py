"""Who may talk to a server that listens on this machine only.

A web page that the user has open can make the browser send requests to 127.0.0.1. Two headers tell them from ours: by
DNS rebinding the page's own name arrives as Host, and what another page sends to change something carries its Origin.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock_proto.v1 import codes
from penstock_service.config.addresses import is_loopback

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class HostGuard:
    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._refusal(scope) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse({"code": codes.INVALID_REQUEST, "message": reason}, status_code=403)
        await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback_only and not is_loopback(_name(host)):
            return (
                f"this server listens on loopback only, so the Host header must name this machine (localhost), "
                f"not {host!r}; to serve others, start it with --http 0.0.0.0:PORT"
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and urlsplit(origin).netloc != host:
            return f"a web page of another origin ({origin!r}) may not change anything here"
        return None


def _name(host: str) -> str:
    """The host of a Host header, without port and brackets; "" where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
