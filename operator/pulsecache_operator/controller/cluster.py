"""What the controller knows of the cluster, kept by watches, and whom a change concerns. No decisions, no requests.

The watches replace everything at each LIST. Policies come from Kopf event by event and are compared with a LIST of our
own each minute: an event and a LIST may overtake each other, so of two versions of an object the newer stays, and what
was deleted is not brought back by a LIST that began before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pulsecache_operator.controller.api import Document, Kind, Listing
from pulsecache_operator.controller.facts import Workload, without_managed_fields
from pulsecache_operator.controller.rollout import Surroundings
from pulsecache_operator.placement import Object, claims
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import CachePolicy
from pulsecache_policy.parse import parse_policy

REMEMBERED_DELETIONS = 10_000


class Objects:
    """The objects of one kind by namespace and name, as a watch's sink. `changed(old, new)` tells of differences."""

    def __init__(self, changed: Callable[[Object | None, Object | None], None]) -> None:
        self._changed = changed
        self._found: dict[str, dict[str, Object]] = {}

    def of(self, namespace: str) -> Mapping[str, Object]:
        return self._found.get(namespace, {})

    def __iter__(self) -> Iterator[Object]:
        for found in self._found.values():
            yield from found.values()

    def replace(self, objects: Sequence[Object]) -> None:
        before, self._found = self._found, {}
        for item in objects:
            namespace, name = _place(item)
            self._found.setdefault(namespace, {})[name] = item
            old = before.get(namespace, {}).pop(name, None)
            if old != item:
                self._changed(old, item)
        for gone in before.values():
            for item in gone.values():
                self._changed(item, None)

    def put(self, item: Object) -> None:
        namespace, name = _place(item)
        found = self._found.setdefault(namespace, {})
        old = found.get(name)
        found[name] = item
        if old != item:
            self._changed(old, item)

    def drop(self, item: Object) -> None:
        namespace, name = _place(item)
        found = self._found.get(namespace, {})
        old = found.pop(name, None)
        if not found:
            self._found.pop(namespace, None)
        if old is not None:
            self._changed(old, None)


class Policies:
    """CachePolicies by `namespace/name`, and what they say where they are valid."""

    def __init__(self, changed: Callable[[Document | None, Document | None], None]) -> None:
        self._changed = changed
        self._documents: dict[str, Document] = {}
        self._parsed: dict[str, CachePolicy] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self.listed = False
        """Whether a LIST has been heard: only then is what is not here certainly not there."""

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._documents))

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, key: str) -> Document | None:
        return self._documents.get(key)

    def valid(self, key: str) -> CachePolicy | None:
        return self._parsed.get(key)

    def all_valid(self) -> Iterable[CachePolicy]:
        return self._parsed.values()

    def valid_of(self, namespace: str) -> tuple[CachePolicy, ...]:
        return tuple(policy for policy in self._parsed.values() if policy.namespace == namespace)

    def keys_of(self, namespace: str) -> tuple[str, ...]:
        return tuple(key for key in self._documents if key.partition("/")[0] == namespace)

    def heard(self, kind: str | None, document: Document) -> None:
        """An event of the watch."""
        if kind == "DELETED":
            self._gone(document)
        else:
            self._put(document)

    def replace(self, listing: Listing) -> None:
        """A LIST: what is missing in it is gone, except for what is newer than the LIST itself."""
        for document in listing.items:
            if _uid(document) not in self._deleted:
                self._put(document)
        there = {_uid(document) for document in listing.items}
        for document in tuple(self._documents.values()):
            if _uid(document) not in there and not _newer(_version(document), listing.version):
                self._gone(document)
        self.listed = True

    def _put(self, document: Document) -> None:
        document = without_managed_fields(document)
        key = "/".join(_place(document))
        old = self._documents.get(key)
        if old is not None and _uid(old) == _uid(document) and _newer(_version(old), _version(document)):
            return
        self._documents[key] = document
        try:
            self._parsed[key] = parse_policy(document)
        except InvalidPolicy:
            self._parsed.pop(key, None)
        if old != document:
            self._changed(old, document)

    def _gone(self, document: Document) -> None:
        self._deleted[_uid(document)] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        key = "/".join(_place(document))
        old = self._documents.get(key)
        if old is None or _uid(old) != _uid(document):
            return  # another one of the same name is there already
        del self._documents[key]
        self._parsed.pop(key, None)
        self._changed(old, None)


class Cluster:
    """All of it. `concerned(key)` is called with each policy (`namespace/name`) that a change may matter to,
    `namespace_concerned(name)` where its policies may conflict in another way, or want Redis now, or no longer."""

    def __init__(
        self, concerned: Callable[[str], None], namespace_concerned: Callable[[str], None], *, own_namespace: str
    ) -> None:
        self._concerned = concerned
        self._namespace_concerned = namespace_concerned
        self._around: dict[str, Surroundings] = {}
        self._own_namespace = own_namespace
        self.policies = Policies(self._policy_changed)
        self.services = Objects(self._service_changed)
        self.namespaces = Objects(self._namespace_changed)
        self.pods = Objects(self._pod_changed)
        self.workloads: dict[Kind, Objects] = {}

    def workload_sink(self, kind: Kind) -> Objects:
        return self.workloads.setdefault(kind, Objects(self._workload_changed))

    def around(self, namespace: str) -> Surroundings:
        """The same object until something of it changes."""
        if namespace not in self._around:
            self._around[namespace] = self._look_around(namespace)
        return self._around[namespace]

    def _look_around(self, namespace: str) -> Surroundings:
        known = self.namespaces.of("").get(namespace)
        return Surroundings(
            namespace=dict(known) if known else {"metadata": {"name": namespace}},
            policies=self.policies.valid_of(namespace),
            services=tuple(dict(service) for service in self.services.of(namespace).values()),
            own_namespace=self._own_namespace,
        )

    def pods_of(self, namespace: str) -> tuple[Document, ...]:
        return tuple(dict(pod) for pod in self.pods.of(namespace).values())

    def workloads_of(self, namespace: str) -> tuple[Workload, ...]:
        return tuple(
            Workload.of(kind, dict(document))
            for kind, objects in self.workloads.items()
            for document in objects.of(namespace).values()
        )

    # --- whom a change concerns ----------------------------------------------------------------------------------

    def _policy_changed(self, old: Document | None, new: Document | None) -> None:
        document = new or old
        assert document is not None
        namespace, name = _place(document)
        self._concerned(f"{namespace}/{name}")
        if old is None or new is None or _uid(old) != _uid(new) or old.get("spec") != new.get("spec"):
            self._around.pop(namespace, None)
            self._namespace_concerned(namespace)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        document = new or old
        assert document is not None
        self._around.pop(_place(document)[0], None)
        for key in self.policies.keys_of(_place(document)[0]):
            self._concerned(key)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        document = new or old
        assert document is not None
        self._around.pop(_place(document)[1], None)
        for key in self.policies.keys_of(_place(document)[1]):
            self._concerned(key)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod is not None:
                self._labels_concern(pod, _labels(pod))

    def _workload_changed(self, old: Object | None, new: Object | None) -> None:
        for workload in (old, new):
            if workload is not None:
                self._labels_concern(workload, _labels(workload["spec"]["template"]))

    def _labels_concern(self, item: Object, labels: Mapping[str, str]) -> None:
        namespace = _place(item)[0]
        services = self.services.of(namespace)
        for policy in self.policies.valid_of(namespace):
            if claims(policy, labels, services):
                self._concerned(policy.key)


def _place(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _uid(document: Mapping[str, Any]) -> str:
    return str(document["metadata"].get("uid") or "")


def _version(document: Mapping[str, Any]) -> str:
    return str(document["metadata"].get("resourceVersion") or "")


def _newer(one: str, other: str) -> bool:
    """Resource versions are whole numbers that grow; where they are not, the last one heard counts."""
    return one.isdecimal() and other.isdecimal() and int(one) > int(other)


def _labels(document: Mapping[str, Any]) -> Mapping[str, str]:
    return (document.get("metadata") or {}).get("labels") or {}
