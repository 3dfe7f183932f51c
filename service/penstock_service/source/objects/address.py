"""Addresses in object stores, as URIs. Keys are taken literally: nothing in them is percent-decoded."""

import re
from dataclasses import dataclass, replace

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.uri import redacted, scheme_of, secrets_in
from penstock_service.source.stores import ALIASES, SCHEMES, Stores

_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_CURES = {
    "s3": "AWS_* variables, ~/.aws or the machine's role; endpoint and region from the settings s3_endpoint and "
    "s3_region or from AWS_ENDPOINT_URL and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the machine's service account",
    "az": "AZURE_* variables or the machine's managed identity; the account from the setting azure_account",
}


@dataclass(frozen=True)
class Address:
    """A bucket (Azure: a container) and a key or prefix in it, which may be empty."""

    scheme: str  # s3, gs, az
    bucket: str
    key: str = ""
    account: str = ""  # Azure
    domain: str = ""  # Azure: of the cloud that the account is in

    @property
    def uri(self) -> str:
        """As users write it; parses back to the same."""
        if self.scheme == "az":
            top = f"abfss://{self.bucket}@{self.account}.dfs.core.{self.domain}"
        else:
            top = f"{self.scheme}://{self.bucket}"
        return f"{top}/{self.key}" if self.key else top

    @property
    def inner(self) -> str:
        """As `pyarrow.fs` wants it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def at(self, key: str) -> "Address":
        return replace(self, key=key)

    def under(self, relative: str) -> "Address":
        """An object below this prefix."""
        return self.at(f"{self.key.rstrip('/')}/{relative}" if self.key else relative)


def parse_address(uri: str, stores: Stores) -> Address:
    """Raises InvalidRequest: credentials or options in the URI, a scheme that is unknown or not allowed, no bucket.

    No error repeats what may be a secret.
    """
    shown = redacted(uri)
    named = scheme_of(uri) or ""
    scheme = ALIASES.get(named, named)
    if scheme not in SCHEMES or scheme == "file":
        raise InvalidRequest(
            f"{shown}: {named}:// cannot be read. A path is local, or s3://, gs://, az:// or abfss://."
        )
    if what := secrets_in(uri):
        raise InvalidRequest(f"{shown}: a URI must not hold {what}. They come from {_CURES[scheme]}.")
    if scheme not in stores.schemes:
        raise InvalidRequest(
            f"{shown}: {named}:// is not allowed on this server, which reads {', '.join(stores.schemes)}: "
            f"add {scheme} to its setting schemes to allow it"
        )
    authority, _, key = uri.partition("://")[2].partition("/")
    address = _azure(shown, authority, key, stores) if scheme == "az" else Address(scheme, authority, key)
    if not _BUCKET.fullmatch(address.bucket):
        raise InvalidRequest(f"{shown}: {address.bucket!r} is no name of a bucket. Write {scheme}://BUCKET/PATH.")
    if "//" in f"/{key}" or any(part in (".", "..") for part in key.split("/")):
        raise InvalidRequest(f"{shown}: '//', '.' and '..' mean nothing in the keys of objects. Write the key itself.")
    return replace(address, key=key.rstrip("/"))


def _azure(shown: str, authority: str, key: str, stores: Stores) -> Address:
    """abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY, or az://CONTAINER/KEY with the account from the settings."""
    container, at, host = authority.rpartition("@")
    if at:
        found = _AZURE_HOST.fullmatch(host)
        if found is None:  # any other host would be sent our credentials
            raise InvalidRequest(
                f"{shown}: {host!r} is no host of Azure. Write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/"
            )
        return Address("az", container, key, found[1], found[2])
    if not stores.azure_account:
        raise InvalidRequest(
            f"{shown} does not name its storage account. Write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, "
            "or give the setting azure_account."
        )
    return Address("az", host, key, stores.azure_account, "windows.net")
