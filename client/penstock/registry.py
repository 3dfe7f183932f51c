"""What a client may ask of the server's registry of datasets."""

import builtins
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from penstock.errors import InvalidRequest, ResourceExhausted, ServerUnavailable
from penstock.link import Link
from penstock.registered import DatasetDiff, DatasetInfo, DiscoveredChild
from penstock.warmed import Warmed
from penstock_proto.v1 import control_pb2 as pb
from penstock_proto.v1 import control_pb2_grpc
from penstock_proto.v1.tasks import Task

_CALL_TIMEOUT: Final = 30.0  # seconds for calls that answer from memory or SQLite


class Registry:
    """The part of a `Client` that is about datasets. NAME stands for its newest version, NAME@VERSION for that one."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def datasets(self, text: str = "", task: Task | None = None, tag: str = "") -> builtins.list[DatasetInfo]:
        """The newest version of every dataset, by name; or of those that `search` would find."""
        return self.search(text, task, tag)

    def list(self) -> builtins.list[DatasetInfo]:
        """The newest version of every dataset, by name."""
        return _infos(self._call("ListDatasets", pb.ListDatasetsRequest()))

    def search(self, text: str = "", task: Task | None = None, tag: str = "") -> builtins.list[DatasetInfo]:
        """Datasets that hold `text`, are of the task type `task` and have the tag `tag`.

        Text is looked for, in any case, in name, description, tags, task, metric and the names of columns.

        Raises:
            InvalidRequest: no such task type; the text names the nearest.
        """
        return _infos(self._call("SearchDatasets", pb.SearchDatasetsRequest(text=text, task=task or "", tag=tag)))

    def get(self, name: str) -> DatasetInfo:
        """One dataset by NAME or NAME@VERSION (the first digits of the version will do).

        Raises:
            DatasetNotFound: with the nearest names.
        """
        return DatasetInfo.of(self._call("GetDataset", pb.GetDatasetRequest(name=name)))

    def versions(self, name: str) -> builtins.list[DatasetInfo]:
        """All versions of a dataset, the newest first.

        Raises:
            DatasetNotFound: with the nearest names.
        """
        return _infos(self._call("ListVersions", pb.ListVersionsRequest(name=name)))

    def diff(self, a: str, b: str) -> DatasetDiff:
        """The shards that were added, are gone or changed from `a` to `b`, each NAME or NAME@VERSION.

        Raises:
            DatasetNotFound: with the nearest names.
        """
        return DatasetDiff.of(self._call("DiffDatasets", pb.DiffDatasetsRequest(a=a, b=b)))

    def register(
        self,
        name: str,
        path: str | Sequence[str],
        *,
        shards: str = "",
        required: Mapping[str, Sequence[str]] | None = None,
        description: str | None = None,
        task: Task | None = None,
        tags: str | Sequence[str] | None = None,
        metric: str | None = None,
        target: str | Sequence[str] | None = None,
        rows: int | None = None,
        features: int | None = None,
    ) -> DatasetInfo:
        """Register a file, a folder, a glob or a spec on the server's machine; returns when it was scanned.

        The same content is the same version, other content a new one. What is not given is the spec's, else stays as
        it was in the version before; an empty value clears it.

        Args:
            name: empty: the spec's, else made from the path.
            path: one, or several of the same dataset.
            shards: of each path, only those with these numbers in their names, such as "0-99,120-"; the same as to
                write PATH#0-99,120-.
            required: by split, columns that each of its files must have.
            task: the task type.
            tags, target: one or several; the target is the column or columns to be predicted.
            rows, features: what you expect to be found; features are top-level columns less those of the target.

        Raises:
            InvalidRequest: the path, the task type or the target is wrong, or other rows or features were found; the
                text gives both numbers.
            DataError, SourceUnreadable: a file cannot be read.
        """
        for what, number in (("rows", rows), ("features", features)):
            if number is not None and number < 0:
                raise InvalidRequest(f"{what}={number}: must be 0 or more")
        request = pb.RegisterDatasetRequest(
            name=name,
            paths=[f"{one}#{shards}" if shards else one for one in ([path] if isinstance(path, str) else path)],
            required=[pb.Columns(split=split, columns=columns) for split, columns in (required or {}).items()],
            description=description,
            task=task,
            tags=_words(tags),
            metric=metric,
            target=_words(target),
            rows=rows,
            features=features,
        )
        # A scan takes as long as it takes: keepalive notices a dead server.
        return DatasetInfo.of(self._call("RegisterDataset", request, None))

    def remove(self, name: str, *, force: bool = False) -> DatasetInfo:
        """Forget a dataset, or one version of it; its files stay.

        Args:
            force: even while streams read it. They run on, over as many epochs as they like, but once their connection
                is lost they cannot be opened again.

        Raises:
            InvalidRequest: streams read it, and not `force`.
            DatasetNotFound: with the nearest names.
        """
        answer = self._call("RemoveDataset", pb.RemoveDatasetRequest(name=name, force=force))
        return DatasetInfo.of(answer.removed)

    def discover(self) -> builtins.list[DiscoveredChild]:
        """Make the server look into its folder of datasets (`penstock serve --discover DIR`) now.

        Raises:
            InvalidRequest: it was started without one.
            SourceUnreadable: the folder cannot be listed.
        """
        answer = self._call("DiscoverDatasets", pb.DiscoverDatasetsRequest(), None)
        return [DiscoveredChild.of(child) for child in answer.children]

    def warm(self, name: str, *, split: str = "train", progress: Callable[[Warmed], None] | None = None) -> Warmed:
        """Have all chunks of a dataset made and kept by the server before they are read; returns when they are there.

        Sessions go before it. What streams transform themselves (`rows=`) is not made.

        Args:
            name: NAME or NAME@VERSION.
            progress: called with how far it is, again and again. If it raises, the making ends.

        Raises:
            DatasetNotFound: with the nearest names.
            ResourceExhausted: it does not fit into the server's chunk store, with the bytes; or the store's disk
                refuses. Where not all could be made, the text says why.
        """
        stub = control_pb2_grpc.ControlStub(self._link.channel())
        last = None
        with closing(self._link.each(stub.Warm, pb.WarmRequest(name=name, split=split))) as statuses:
            for status in statuses:
                last = Warmed.of(status)
                if progress is not None:
                    progress(last)
        if last is None or last.state not in ("done", "stopped"):
            raise ServerUnavailable(f"{self._link.target} ended before all of {name} was made")
        if last.state == "stopped":
            raise ResourceExhausted(f"{last}: {last.reason}")
        return last

    def _call(self, method: str, request: Any, timeout: float | None = _CALL_TIMEOUT) -> Any:
        stub = control_pb2_grpc.ControlStub(self._link.channel())
        return self._link.call(getattr(stub, method), request, timeout)


def _infos(answer: pb.ListDatasetsResponse) -> builtins.list[DatasetInfo]:
    return [DatasetInfo.of(dataset) for dataset in answer.datasets]


def _words(words: str | Sequence[str] | None) -> pb.Words | None:
    """A string is one word, and an empty one none."""
    if words is None:
        return None
    return pb.Words(words=[words] if isinstance(words, str) and words else words)
