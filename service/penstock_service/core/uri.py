"""URIs as users write them, and what must never be shown or kept of them."""

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_QUERY = re.compile(r"\?[A-Za-z_][\w.\-]*=.*", re.DOTALL)
_BETWEEN = re.compile(r"([\s,'\"\[\]]+)")
_HIDDEN = "***"
_NAMED_USER = ("abfs", "abfss")  # abfss://CONTAINER@ACCOUNT.dfs.core.windows.net: what stands there is no user


def scheme_of(text: str) -> str | None:
    """The scheme in lower case, or None: then it is a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else None


def place_of(root: str) -> str:
    """What fails as a whole: scheme and bucket of a URI, the folder itself where it is one of this machine."""
    scheme = scheme_of(root)
    return root if scheme is None else f"{scheme}://{root.partition('://')[2].partition('/')[0]}"


def secrets_in(text: str) -> str | None:
    """What a URI holds that does not belong there, in words; None if nothing does. Never repeats it."""
    scheme = scheme_of(text)
    if scheme is None:
        return None
    rest = text.partition("://")[2]
    authority = rest.partition("/")[0].partition("?")[0]
    user = authority.rpartition("@")[0]
    if ":" in authority if scheme in _NAMED_USER else (user or _key_pair(authority)):
        return "credentials"
    if query := _QUERY.search(rest):
        names = [part.partition("=")[0] for part in query[0][1:].split("&")]
        return f"options ({', '.join(n for n in names if re.fullmatch(r'[A-Za-z_][A-Za-z0-9_.-]{0,40}', n))})"
    return None


def redacted(text: str) -> str:
    """`text` without the credentials and options of the URIs in it, which end at white space, quotes and commas."""
    return "".join(_redacted(part) if "://" in part else part for part in _BETWEEN.split(text))


def _redacted(text: str) -> str:
    found = _SCHEME.search(text)
    if found is None:
        return text
    before, rest = text[: found.end()], text[found.end() :]
    authority = rest.partition("/")[0]
    if ":" in authority if found[1].lower() in _NAMED_USER else "@" in authority or _key_pair(authority):
        # a secret key may hold "/" and "?": all up to the last "@" goes
        rest = f"{_HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest else _HIDDEN
    return before + _QUERY.sub("?" + _HIDDEN, rest)


def _key_pair(authority: str) -> bool:
    """KEY:SECRET, of which the secret may go on behind a "/". HOST:PORT is none."""
    _, colon, port = authority.partition(":")
    return bool(colon) and not port.isdigit()
