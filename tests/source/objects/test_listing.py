from pathlib import Path

import pytest

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.retry import Retry
from penstock_service.source.discover import discover
from penstock_service.source.objects.listing import matches
from tests.objectstore import ObjectStore, Proxy


def put(store: ObjectStore, *keys: str) -> None:
    for key in keys:
        store.put(key, b"x\n1\n")


def paths(store: ObjectStore, path: str) -> list[str]:
    return [file.path for file in discover(f"s3://{store.bucket}/{path}", store.stores).files]


def test_a_prefix_is_its_readable_objects_at_any_depth_in_the_order_of_path_bytes(store: ObjectStore) -> None:
    put(store, "d/b.csv", "d/a/z.csv", "d/a.csv", "d/B.csv", "d/a-b/é.csv", "d/a-b/z.csv", "d/10.csv", "d/9.csv")
    put(store, "d/.h.csv", "d/_temporary/e.csv", "d/f.png", "d2/other.csv")
    found = discover(store.uri("d"), store.stores)
    expected = ["10.csv", "9.csv", "B.csv", "a-b/z.csv", "a-b/é.csv", "a.csv", "a/z.csv", "b.csv"]
    assert [f.path for f in found.files] == expected
    assert found.root == store.uri("d")
    assert found.notes == ("ignored: 2 hidden (named .* or _*), 1 .png",)
    assert found == discover(store.uri("d") + "/", store.stores)


def test_a_whole_bucket_is_a_dataset(store: ObjectStore) -> None:
    put(store, "b/2.csv", "a.csv")
    assert paths(store, "") == ["a.csv", "b/2.csv"]
    assert discover(f"s3://{store.bucket}", store.stores).root == f"s3://{store.bucket}"


def test_a_single_object_is_a_dataset_even_if_hidden_but_its_suffix_must_be_known(store: ObjectStore) -> None:
    put(store, "d/_a b%20+#é.csv", "d/b.png")
    found = discover(store.uri("d/_a b%20+#é.csv"), store.stores)
    assert (found.root, [f.path for f in found.files]) == (store.uri("d"), ["_a b%20+#é.csv"])
    with pytest.raises(InvalidRequest, match=r"no readable file among 1: 1 \.png\. Readable are \.parquet"):
        discover(store.uri("d/b.png"), store.stores)


def test_a_glob_is_relative_to_its_fixed_part_and_may_cross_prefixes(store: ObjectStore) -> None:
    put(store, "x/1/a.csv", "x/2/a.csv", "x/2/b.jsonl", "y/1/a.csv", "x/1/z.png", "x/part-0.csv", "x/part-10.csv")
    assert paths(store, "x/*/*.csv") == ["1/a.csv", "2/a.csv"]
    assert paths(store, "x/**") == ["1/a.csv", "2/a.csv", "2/b.jsonl", "part-0.csv", "part-10.csv"]
    assert paths(store, "**/a.csv") == ["x/1/a.csv", "x/2/a.csv", "y/1/a.csv"]
    assert paths(store, "x/part-?.csv") == ["part-0.csv"]
    assert paths(store, "[y]/*/a.csv") == ["y/1/a.csv"]
    with pytest.raises(InvalidRequest, match=r"none of the 6 objects under s3://\S+/x match this glob"):
        discover(store.uri("x/*/*.nothing"), store.stores)


def test_a_key_with_wildcard_characters_that_exists_is_taken_as_it_is(store: ObjectStore) -> None:
    put(store, "a[1].csv", "a1.csv", "f[1]/b.csv")
    assert paths(store, "a[1].csv") == ["a[1].csv"]
    assert paths(store, "f[1]") == ["b.csv"]


def test_more_objects_than_one_page_of_a_listing_holds(store: ObjectStore) -> None:
    names = [f"{i:04}.csv" for i in range(1100)]
    store.put_many([f"d/{name}" for name in names], b"x\n1\n")
    with Proxy(store.endpoint, trouble=lambda r, n: "500" if "continuation" in r.path and n == 3 else "") as proxy:
        found = discover(store.uri("d"), store.through(proxy))
    assert [f.path for f in found.files] == names
    assert len(proxy.requests) <= 5  # HEAD, two pages, one of them twice


def test_a_listing_is_tried_as_often_as_the_setting_says(store: ObjectStore) -> None:
    with Proxy(store.endpoint, trouble=lambda *_: "500") as proxy, pytest.raises(Exception, match="after 2 tries"):
        discover(store.uri("d/"), store.through(proxy, retry=Retry(1, 0.01, 0.01)))
    assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a.csv", "*.csv", True),
        ("a/b.csv", "*.csv", False),
        ("a/b.csv", "**/*.csv", True),
        ("b.csv", "**/*.csv", True),
        ("a/b/c.csv", "a/**", True),
        ("a/b/c.csv", "a/**/c.csv", True),
        ("a/b/c.csv", "a/*/d.csv", False),
        ("a/B.csv", "a/b.csv", False),
        ("a/1.csv", "a/[0-4].csv", True),
    ],
)
def test_globs_match_as_those_of_local_paths(path: str, pattern: str, expected: bool) -> None:
    assert matches(path.split("/"), pattern.split("/")) is expected


def test_splits_ranges_and_several_paths_are_as_on_this_machine(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    for n in range(4):
        store.put(f"d/train-{n}.csv", b"x,y\n1,2\n")
    store.put("d/test.csv", b"x\n1\n")
    found = discover(store.uri("d"), store.stores)
    assert {name: len(found.of_split(name).files) for name in found.splits} == {"train": 4, "test": 1}
    some = discover(store.uri("d/train*") + "#1-2", store.stores)
    assert [file.path for file in some.files] == ["train-1.csv", "train-2.csv"]
    several = discover([store.uri("d/train-0.csv"), store.uri("d/test.csv"), store.uri("d/t*.csv")], store.stores)
    assert (several.root, len(several.files)) == (store.uri("d"), 5)
    assert several.splits == ["train", "test"]
    with pytest.raises(InvalidRequest, match="must be in one place"):
        discover([store.uri("d"), str(tmp_path)], store.stores)
