import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from penstock_proto.v1 import codes
from penstock_service.admin.http import STATUS, make_http
from penstock_service.core import errors
from penstock_service.core.declaration import Declaration

if TYPE_CHECKING:
    from tests.admin.conftest import SmallOperations


def ask(
    operations: "SmallOperations", method: str, path: str, *, address: str = "127.0.0.1:7401", **request: Any
) -> httpx.Response:
    """One request to the real application."""

    async def talk() -> httpx.Response:
        transport = httpx.ASGITransport(make_http(operations, address=address), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7401") as client:
            return await client.request(method, path, **request)

    return asyncio.run(talk())


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_live_whatever_the_checks_say(operations: "SmallOperations", path: str) -> None:
    operations.passing["registry"] = False
    answer = ask(operations, "GET", path)
    assert (answer.status_code, answer.json()) == (200, {"live": True})


def test_ready(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "failing": []})


def test_not_ready_names_the_failing_checks(operations: "SmallOperations") -> None:
    operations.passing["workers"] = False
    answer = ask(operations, "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "failing": ["workers"]})


def test_verbose_readiness_lists_every_check(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/readyz?verbose")
    assert answer.json()["checks"] == {"registry": True, "workers": True}


def test_datasets_are_listed_with_schema_and_counts(operations: "SmallOperations") -> None:
    (found,) = ask(operations, "GET", "/api/v1/datasets").json()["datasets"]
    assert found == {
        "name": "titanic",
        "version": "v1",
        "path": "data/titanic",
        "rows": 20,
        "bytes": 1400,
        "shards": 2,
        "chunks": 2,
        "formats": ["csv"],
        "columns": [
            {"name": "age", "type": "double", "nullable": True},
            {"name": "id", "type": "int64", "nullable": False},
        ],
        "splits": [],
        "description": "who survived",
        "task": "binary",
        "tags": ["binary"],
        "metric": "auc",
        "target": ["age"],
        "features": 1,
        "registered_at": "2026-11-21T00:00:00+00:00",
    }


@pytest.mark.parametrize(("query", "names"), [("text=surv", ["titanic"]), ("text=zzz", []), ("tag=sft", [])])
def test_datasets_are_searched(operations: "SmallOperations", query: str, names: list[str]) -> None:
    found = ask(operations, "GET", f"/api/v1/datasets?{query}").json()["datasets"]
    assert [d["name"] for d in found] == names


def test_register_get_and_remove(operations: "SmallOperations") -> None:
    made = ask(operations, "POST", "/api/v1/datasets", json={"path": "/data/web", "tags": ["sft"]})
    assert (made.status_code, made.json()["name"], made.json()["tags"]) == (201, "web", ["sft"])
    assert ask(operations, "GET", "/api/v1/datasets/web").json() == made.json()
    assert ask(operations, "DELETE", "/api/v1/datasets/web").json() == made.json()
    assert list(operations.held) == ["titanic"]


def test_an_empty_value_is_said_and_a_missing_one_is_not(operations: "SmallOperations") -> None:
    ask(operations, "POST", "/api/v1/datasets", json={"path": "/data/web", "description": "", "target": [], "rows": 3})
    assert operations.said == Declaration(description="", target=(), rows=3)


def test_a_dataset_in_use_is_removed_with_force(operations: "SmallOperations") -> None:
    operations.in_use = ("titanic",)
    assert ask(operations, "DELETE", "/api/v1/datasets/titanic").status_code == 400
    assert ask(operations, "DELETE", "/api/v1/datasets/titanic?force=true").status_code == 200


def test_versions_differences_and_discoveries(operations: "SmallOperations") -> None:
    found = ask(operations, "GET", "/api/v1/datasets/titanic/versions").json()["datasets"]
    assert [d["version"] for d in found] == ["v2", "v1"]
    assert ask(operations, "GET", "/api/v1/diff?a=x&b=y").json() == {
        "a": "x",
        "b": "y",
        "added": [{"path": "n.csv", "rows_before": 0, "rows": 5, "bytes_before": 0, "bytes": 50}],
        "gone": [],
        "changed": [{"path": "0.csv", "rows_before": 10, "rows": 9, "bytes_before": 700, "bytes": 630}],
        "counts": {"added": 1, "gone": 0, "changed": 1, "same": 1},
    }
    assert ask(operations, "GET", "/api/v1/diff?a=x").json()["message"] == "b: Field required"
    assert ask(operations, "POST", "/api/v1/discover").json()["children"][1] == {
        "name": "",
        "path": "/data/x.png",
        "state": "refused",
        "version": "",
        "reason": "it cannot be read as data",
    }


def test_a_search_for_no_task_type_is_refused_with_the_nearest(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/api/v1/datasets?task=binaire")
    assert answer.status_code == 400
    assert "did you mean binary?" in answer.json()["message"]


def test_an_unknown_dataset_is_404_with_the_servers_own_words(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/api/v1/datasets/titanik")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "NotFound",
        "message": "there is no dataset 'titanik'; the nearest are: titanic",
    }


def test_a_wrong_body_names_the_field(operations: "SmallOperations") -> None:
    answer = ask(operations, "POST", "/api/v1/datasets", json={"pth": "x"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "InvalidRequest"
    assert "path: Field required" in answer.json()["message"]
    assert "pth: Extra inputs are not permitted" in answer.json()["message"]


def test_an_unknown_path_points_to_what_there_is(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/api/v2/datasets")
    assert answer.status_code == 404
    assert answer.json()["message"] == "there is nothing at /api/v2/datasets; /openapi.json lists what is"


def test_a_wrong_method_is_refused_in_the_same_shape(operations: "SmallOperations") -> None:
    answer = ask(operations, "PUT", "/api/v1/info")
    assert (answer.status_code, answer.json()["message"]) == (405, "PUT /api/v1/info: Method Not Allowed")


def test_every_error_type_has_a_status() -> None:
    types = [t for t in vars(errors).values() if isinstance(t, type) and issubclass(t, errors.ServiceError)]
    assert {t.code for t in types} <= set(STATUS)


@pytest.mark.parametrize(("fault", "status"), [(errors.ResourceExhausted("full"), 503), (errors.DataError("bad"), 422)])
def test_service_errors_keep_their_code(operations: "SmallOperations", fault: errors.ServiceError, status: int) -> None:
    operations.fault = fault
    answer = ask(operations, "GET", "/api/v1/datasets")
    assert (answer.status_code, answer.json()) == (status, {"code": fault.code, "message": str(fault)})


def test_a_bug_says_so_and_keeps_its_details_to_the_log(operations: "SmallOperations") -> None:
    operations.fault = KeyError("secret")
    answer = ask(operations, "GET", "/api/v1/datasets")
    assert (answer.status_code, answer.json()["code"]) == (500, codes.INTERNAL)
    assert answer.json()["message"] == "a bug of ours: KeyError; the server's log has the details"


def test_sessions_and_information(operations: "SmallOperations") -> None:
    (session,) = ask(operations, "GET", "/api/v1/sessions").json()["sessions"]
    assert (session["rank"], session["state"], session["rows_sent"]) == (1, "waiting for credit", 384)
    information = ask(operations, "GET", "/api/v1/info").json()
    assert (information["version"], information["pid"], information["capabilities"]) == ("0.1.0", 42, ["grpc"])


def test_jobs_name_who_is_missing_and_who_is_behind(operations: "SmallOperations") -> None:
    (job,) = ask(operations, "GET", "/api/v1/jobs").json()["jobs"]
    (stream,) = job["streams"]
    assert (job["job"], stream["name"], stream["missing"], stream["lagging"]) == ("run-17", "train", [2], [1])
    assert [(r["rank"], r["connected"], r["steps_behind"], r["stalled"]) for r in stream["ranks"]] == [
        (0, True, 0, False),
        (1, True, 40, True),
        (2, False, None, False),
    ]


def test_openapi_is_there_and_no_page_that_needs_a_cdn(operations: "SmallOperations") -> None:
    api = ask(operations, "GET", "/openapi.json").json()
    assert {"/api/v1/datasets", "/api/v1/datasets/{name}", "/api/v1/sessions", "/api/v1/info", "/readyz"} <= set(
        api["paths"]
    )
    assert {"Dataset", "Session", "Information", "Problem", "Readiness"} <= set(api["components"]["schemas"])
    assert ask(operations, "GET", "/docs").status_code == 404


@pytest.mark.parametrize("host", ["localhost:7401", "127.0.0.1:7401", "127.0.0.2", "[::1]:7401", "x.localhost"])
def test_names_of_this_machine_are_let_in(operations: "SmallOperations", host: str) -> None:
    assert ask(operations, "GET", "/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7401", "localhost.evil.example", "[zz", "10.0.0.1"])
def test_on_loopback_other_names_are_refused(operations: "SmallOperations", host: str) -> None:
    answer = ask(operations, "GET", "/api/v1/datasets", headers={"Host": host})
    assert answer.status_code == 403
    assert f"must name this machine (localhost), not {host!r}" in answer.json()["message"]


def test_where_the_network_is_served_any_name_will_do(operations: "SmallOperations") -> None:
    answer = ask(operations, "GET", "/metrics", address="0.0.0.0:7401", headers={"Host": "penstock:7401"})
    assert answer.status_code == 200


def test_a_web_page_of_another_origin_may_not_change_anything(operations: "SmallOperations") -> None:
    foreign = {"Origin": "http://evil.example"}
    answer = ask(operations, "DELETE", "/api/v1/datasets/titanic", headers=foreign)
    assert (answer.status_code, list(operations.held)) == (403, ["titanic"])
    assert "another origin ('http://evil.example') may not change" in answer.json()["message"]
    own = {"Origin": "http://127.0.0.1:7401"}
    assert ask(operations, "DELETE", "/api/v1/datasets/titanic", headers=own).status_code == 200


def test_runs_are_listed_and_changed(operations: "SmallOperations") -> None:
    (found,) = ask(operations, "GET", "/api/v1/runs").json()["runs"]
    assert (found["run"], found["ranks"], found["entries"][0]["kind"]) == ("3f2a", [0, 1], "quarantine")
    assert ask(operations, "GET", "/api/v1/runs/3f").json() == found
    assert ask(operations, "GET", "/api/v1/runs/zz").status_code == 404
    changed = ask(operations, "POST", "/api/v1/runs/3f/mixture", json={"weights": {"web": 0.5, "code": 0.5}})
    assert (changed.status_code, changed.json()["step"], changed.json()["exact"]) == (200, 40, True)
    assert "carried" not in changed.json()
    refused = ask(operations, "POST", "/api/v1/runs/3f/mixture", json={"weights": {"web": 0.5}})
    assert (refused.status_code, refused.json()["code"]) == (400, "InvalidRequest")
    wrong: list[dict[str, Any]] = [{"weights": {"web": "much"}}, {"wheights": {}}, {}]
    for body in wrong:
        assert ask(operations, "POST", "/api/v1/runs/3f/mixture", json=body).status_code == 400
    rows = {"dataset": "web", "rows": [7, "40-49"]}
    assert ask(operations, "POST", "/api/v1/runs/3f/quarantine", json=rows).json()["epoch"] == 1
    refused = ask(operations, "POST", "/api/v1/runs/3f/quarantine", json={**rows, "rows": [100]})
    assert "it has rows 0 to 99" in refused.json()["message"]


def test_bad_rows_and_places_are_listed(operations: "SmallOperations") -> None:
    rows = ask(operations, "GET", "/api/v1/bad-rows").json()["rows"]
    assert [(row["where"], row["on_error"], row["rows"]) for row in rows] == [
        ("0000.jsonl, line 205", "skip", 1),
        ("0002.csv, from row 0 on", "quarantine", 500),
    ]
    assert len(ask(operations, "GET", "/api/v1/bad-rows?job=job&stream=val").json()["rows"]) == 1
    assert len(ask(operations, "GET", "/api/v1/bad-rows?most=1").json()["rows"]) == 1
    assert ask(operations, "GET", "/api/v1/bad-rows?most=0").status_code == 400
    (place,) = ask(operations, "GET", "/api/v1/places").json()["places"]
    assert (place["place"], place["state"], place["retry_in_seconds"]) == ("s3://bucket", "open", 2.5)
