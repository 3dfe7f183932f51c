"""From an address to the `pyarrow.fs` file system that reads it. Credentials are pyarrow's to find."""

from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from penstock_service.source.objects.address import Address
from penstock_service.source.objects.failures import retrying
from penstock_service.source.stores import Stores


def filesystem(address: Address, stores: Stores, tries: int = 1) -> fs.FileSystem:
    """One per bucket and settings; safe to use from many threads.

    `tries`: how often the store's own library tries each request. Reading passes 1, because it tries again itself;
    listing, one call of many pages, cannot.
    """
    bucket = address.at("")
    return retrying(bucket.uri, lambda: _made(bucket, stores, tries), stores.retry)  # the region may be asked for


@lru_cache(maxsize=64)
def _made(bucket: Address, stores: Stores, tries: int) -> fs.FileSystem:
    if bucket.scheme == "s3":
        region = stores.s3_region or None
        if region is None and not stores.s3_endpoint:
            region = fs.resolve_s3_region(bucket.bucket)
        return fs.S3FileSystem(**s3_options(stores, tries), region=region or "us-east-1")
    if bucket.scheme == "gs":
        return fs.GcsFileSystem(**gs_options(stores))
    return fs.AzureFileSystem(**azure_options(bucket))


def s3_options(stores: Stores, tries: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "anonymous": stores.anonymous,
        "connect_timeout": stores.connect_timeout,
        "request_timeout": stores.read_timeout,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=tries),
    }
    if stores.s3_endpoint:
        endpoint = urlsplit(stores.s3_endpoint)
        options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    return options


def gs_options(stores: Stores) -> dict[str, Any]:
    # Google's library would go on for 15 minutes; it has no time-out of one request
    return {"anonymous": stores.anonymous, "retry_time_limit": timedelta(seconds=max(1, round(stores.read_timeout)))}


def azure_options(bucket: Address) -> dict[str, Any]:
    """pyarrow has no settings of Azure's time-outs and tries."""
    return {
        "account_name": bucket.account,
        "blob_storage_authority": f".blob.core.{bucket.domain}",
        "dfs_storage_authority": f".dfs.core.{bucket.domain}",
    }
