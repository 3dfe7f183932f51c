"""What URIs mean, and that none of their secrets is ever shown. GCS and Azure are tested as far as the mapping goes."""

from dataclasses import replace

import pytest
from pyarrow import fs

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.uri import redacted, secrets_in
from penstock_service.source.objects.address import parse_address
from penstock_service.source.objects.filesystems import azure_options, filesystem, gs_options, s3_options
from penstock_service.source.places import place_at
from penstock_service.source.stores import Stores
from tests.objectstore import SECRET

STORES = Stores(azure_account="myaccount")


@pytest.mark.parametrize(
    ("uri", "inner", "canonical"),
    [
        ("s3://bucket/a/b.csv", "bucket/a/b.csv", "s3://bucket/a/b.csv"),
        ("S3://bucket/a/", "bucket/a", "s3://bucket/a"),
        ("s3a://bucket", "bucket", "s3://bucket"),
        ("s3://bucket/a b%20+#é@x:y.csv", "bucket/a b%20+#é@x:y.csv", "s3://bucket/a b%20+#é@x:y.csv"),
        ("s3://bucket/part-?.csv", "bucket/part-?.csv", "s3://bucket/part-?.csv"),
        ("gs://bucket/a", "bucket/a", "gs://bucket/a"),
        ("gcs://bucket/a", "bucket/a", "gs://bucket/a"),
        ("az://box/a", "box/a", "abfss://box@myaccount.dfs.core.windows.net/a"),
        ("abfss://box@acc1.dfs.core.windows.net/a/b", "box/a/b", "abfss://box@acc1.dfs.core.windows.net/a/b"),
        ("abfs://box@acc1.blob.core.windows.net", "box", "abfss://box@acc1.dfs.core.windows.net"),
    ],
)
def test_a_uri_is_a_bucket_and_a_literal_key_and_has_one_canonical_form(uri: str, inner: str, canonical: str) -> None:
    address = parse_address(uri, STORES)
    assert address.inner == inner
    assert address.uri == canonical
    assert parse_address(canonical, STORES) == address


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/a.csv",
        f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}",
        f"s3://user:{SECRET}@bucket",
        f"s3://{SECRET.replace('/', '')}@bucket/a",
        f"s3://bucket/a?access_key=AKIA&secret_key={SECRET}",
        f"s3://bucket/a.csv?X-Amz-Signature={SECRET}",
        f"gs://token:{SECRET}@bucket/a",
        f"abfss://box:{SECRET}@acc1.dfs.core.windows.net/a",
        f"abfss://box@acc1.dfs.core.windows.net/a?sig={SECRET}",
        f"az://acc:{SECRET}@box/a",
        f"https://user:{SECRET}@host/a.csv",
        f"https://host/a.csv?sig={SECRET}",
    ],
)
def test_credentials_in_a_uri_are_refused_and_never_repeated(uri: str) -> None:
    assert secrets_in(uri)
    with pytest.raises(InvalidRequest) as caught:
        parse_address(uri, STORES)
    for text in (str(caught.value), redacted(uri), redacted(f"name={uri}"), redacted(f"['ok=s3://b/c', '{uri}']")):
        assert SECRET not in text
        assert SECRET[-12:] not in text
        assert "***" in text


def test_options_in_a_uri_are_refused_by_name_with_the_cure() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_address("s3://bucket/a?endpoint_override=10.0.0.1:80&region=x", STORES)
    assert str(caught.value) == (
        "s3://bucket/a?***: a URI must not hold options (endpoint_override, region). They come from AWS_* variables, "
        "~/.aws or the machine's role; endpoint and region from the settings s3_endpoint and s3_region or from "
        "AWS_ENDPOINT_URL and AWS_REGION."
    )


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://host/a.csv", "http:// cannot be read. A path is local, or s3://"),
        ("s3://", "'' is no name of a bucket"),
        ("s3://b*t/a", "no name of a bucket"),
        ("s3://localhost:9000/a", "no name of a bucket"),
        ("s3://bucket/a/../b", "mean nothing in the keys"),
        ("s3://bucket//b", "mean nothing in the keys"),
        ("abfss://box@evil.example.com/a", "'evil.example.com' is no host of Azure"),
        ("abfss://box@acc1.dfs.core.windows.net.evil.com/a", "is no host of Azure"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text.replace("(", r"\(")):
        parse_address(uri, STORES)


def test_az_without_an_account_says_where_to_give_it() -> None:
    with pytest.raises(InvalidRequest, match="or give the setting azure_account"):
        parse_address("az://box/a", Stores())


def test_a_scheme_that_is_not_allowed_is_refused_for_registering_and_reading() -> None:
    only_files = replace(STORES, schemes=("file",))
    with pytest.raises(InvalidRequest, match=r"s3a:// is not allowed on this server, which reads file: add s3"):
        parse_address("s3a://bucket/a", only_files)
    with pytest.raises(InvalidRequest, match="not allowed"):
        place_at("s3://bucket", only_files)
    with pytest.raises(InvalidRequest, match="/data is a local path, and this server reads s3 only"):
        place_at("/data", replace(STORES, schemes=("s3",)))


def test_settings_become_the_options_of_pyarrow() -> None:
    stores = Stores(s3_endpoint="http://127.0.0.1:5000", connect_timeout=2, read_timeout=3, anonymous=True)
    options = s3_options(stores, 5)
    assert options.pop("retry_strategy").max_attempts == 5
    assert options == {
        "anonymous": True,
        "connect_timeout": 2,
        "request_timeout": 3,
        "endpoint_override": "127.0.0.1:5000",
        "scheme": "http",
    }
    assert gs_options(stores)["retry_time_limit"].total_seconds() == 3
    china = parse_address("abfss://box@acc1.blob.core.chinacloudapi.cn/a", stores)
    assert azure_options(china) == {
        "account_name": "acc1",
        "blob_storage_authority": ".blob.core.chinacloudapi.cn",
        "dfs_storage_authority": ".dfs.core.chinacloudapi.cn",
    }


def test_pyarrow_makes_the_file_systems_of_google_and_azure() -> None:
    anonymous = Stores(anonymous=True)
    assert isinstance(filesystem(parse_address("gs://bucket/a", anonymous), anonymous), fs.GcsFileSystem)
    azure = parse_address("abfss://box@acc1.dfs.core.windows.net/a", anonymous)
    assert isinstance(filesystem(azure, anonymous), fs.AzureFileSystem)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5000", "ftp://host", "http://host/path", f"http://u:{SECRET}@host"])
def test_an_endpoint_is_a_url_without_credentials(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as caught:
        Stores(s3_endpoint=endpoint)
    assert SECRET not in str(caught.value)
