"""Messages about datasets: between the registry's words and protobuf."""

from typing import Any, Final

from penstock_proto.v1 import control_pb2 as pb
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference, ShardChange
from penstock_service.core.discovery import Discovery
from penstock_service.core.store import AheadStatus

MOST_SHARDS: Final = 10_000
"""How many shards of a kind an answer lists, so that it stays far below the largest message."""


def dataset(found: DatasetVersion) -> pb.Dataset:
    return pb.Dataset(
        name=found.name,
        version=found.version,
        path=found.path,
        rows=found.manifest.rows,
        size=found.manifest.bytes,
        shards=found.manifest.shards.num_rows,
        schema=found.schema.serialize().to_pybytes(),
        description=found.description,
        tags=found.tags,
        registered_at=found.registered_at,
        formats=found.formats,
        task=found.task,
        metric=found.metric,
        target=found.target,
        features=found.features,
        splits=[
            pb.Split(name=s.name, rows=s.rows, size=s.bytes, shards=s.shards, schema=s.schema.serialize().to_pybytes())
            for s in found.splits
        ],
    )


def declaration(request: pb.RegisterDatasetRequest) -> Declaration:
    """Raises InvalidRequest."""

    def given(name: str) -> Any:
        return getattr(request, name) if request.HasField(name) else None

    tags, target = given("tags"), given("target")
    return Declaration(
        description=given("description"),
        task=given("task"),
        tags=None if tags is None else tuple(tags.words),
        metric=given("metric"),
        target=None if target is None else tuple(target.words),
        rows=given("rows"),
        features=given("features"),
        required={columns.split: tuple(columns.columns) for columns in request.required} or None,
    )


def difference(found: Difference) -> pb.DatasetDiff:
    return pb.DatasetDiff(
        a=found.a,
        b=found.b,
        added=_changes(found.added),
        gone=_changes(found.gone),
        changed=_changes(found.changed),
        added_count=len(found.added),
        gone_count=len(found.gone),
        changed_count=len(found.changed),
        same_count=found.same,
    )


def discovery(found: Discovery) -> pb.DiscoverDatasetsResponse:
    children = [
        pb.Child(name=c.name, path=c.path, state=c.state, version=c.version, reason=c.reason) for c in found.children
    ]
    return pb.DiscoverDatasetsResponse(folder=found.folder, children=children)


def _changes(shards: tuple[ShardChange, ...]) -> list[pb.ShardChange]:
    return [
        pb.ShardChange(path=s.path, rows_before=s.rows_before, rows=s.rows, size_before=s.bytes_before, size=s.bytes)
        for s in shards[:MOST_SHARDS]
    ]


def warming(status: AheadStatus) -> pb.Warming:
    return pb.Warming(
        dataset=status.dataset,
        state=status.state,
        chunks=status.chunks,
        there=status.there,
        made=status.made,
        size=status.made_bytes,
        seconds=status.seconds,
        reason=status.reason,
    )
