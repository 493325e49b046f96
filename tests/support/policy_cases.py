"""Documents, good and bad: each is a small change to one of two bases, with the verdict that parser and API server owe.

`tests/crd` gives the whole table to both.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pulsecache_policy import grammar

Document = dict[str, Any]

SERVER_SIDE: Final[Document] = {
    "apiVersion": "pulsecache.dev/v1alpha1",
    "kind": "CachePolicy",
    "metadata": {"name": "products", "namespace": "default"},
    "spec": {
        "targetRef": {"kind": "Service", "name": "products", "sectionName": "http"},
        "dataset": "products",
        "mode": "Serve",
        "rollout": {"strategy": "Workload"},
        "store": {"memory": {"maxBytes": "64Mi"}, "redis": {}},
        "origin": {"maxConcurrency": 100, "timeout": "30s"},
        "staleness": {
            "max": "5s",
            "whenExceeded": "Revalidate",
            "writers": "All",
            "heartbeat": {"interval": "1s", "failureThreshold": 3},
            "settle": "30s",
        },
        "reads": [
            {
                "name": "product",
                "match": {"methods": ["GET"], "path": "/products/{id}"},
                "ttl": {"source": "OriginFirst", "duration": "60s"},
                "key": {"query": {"mode": "All"}, "headers": []},
                "tags": ["product:{id}", "products"],
            },
            {
                "name": "basket",
                "match": {"path": "/baskets/{user}/{rest*}"},
                "key": {
                    "query": {"mode": "Only", "names": ["page"]},
                    "headers": ["Accept-Language"],
                    "principal": {"type": "Cookie", "name": "session"},
                },
            },
        ],
        "writes": [
            {
                "name": "update",
                "match": {"methods": ["PUT", "DELETE"], "path": "/products/{id}"},
                "strategy": "WriteThrough",
                "writeThrough": {"read": "product", "from": "ResponseBody"},
                "invalidates": ["products", "product:{id}"],
            },
            {
                "name": "view-count",
                "match": {"methods": ["POST"], "path": "/products/{id}/views"},
                "strategy": "WriteBehind",
                "writeBehind": {"journal": {"type": "EmptyDir"}, "status": 202, "whenFull": "WriteThrough"},
            },
            {
                "name": "create",
                "match": {"methods": ["POST"], "path": "/products"},
                "strategy": "Invalidate",
                "invalidates": ["products"],
            },
        ],
    },
}

CLIENT_SIDE: Final[Document] = {
    "apiVersion": "pulsecache.dev/v1alpha1",
    "kind": "CachePolicy",
    "metadata": {"name": "catalog", "namespace": "default"},
    "spec": {
        "consumer": {
            "selector": {"matchLabels": {"app": "storefront"}},
            "upstream": "http://products.shop.svc",
            "env": ["PRODUCTS_URL"],
        },
        "dataset": "products",
        "reads": [{"name": "product", "match": {"path": "/products/{id}"}}],
    },
}

GONE: Final = object()
"""As a new value: the field is taken out."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    document: Document
    error: str | None = None
    """Path of an error that the parser reports, or of the list that has it in an element; None for a good document."""
    server: str | None = field(default=None, kw_only=True)
    """Where the API server sees it, if elsewhere."""


def changed(base: Mapping[str, Any], changes: Mapping[str, object]) -> Document:
    """A copy with some fields set, by paths such as `spec.reads[0].name`; `+` as an index appends."""
    document = copy.deepcopy(dict(base))
    for path, value in changes.items():
        steps: list[str | int] = [
            name or (len_step(index)) for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\+)\]", path)
        ]
        place: Any = document
        for step in steps[:-1]:
            if isinstance(place, dict) and step not in place:
                place[step] = {}
            place = place[step]
        last = steps[-1]
        if value is GONE:
            del place[last]
        elif last == -1:
            place.append(copy.deepcopy(value))
        else:
            place[last] = copy.deepcopy(value)
    return document


def len_step(index: str) -> int:
    return -1 if index == "+" else int(index)


def cases() -> tuple[Case, ...]:
    return tuple(_all())


def _all() -> Iterator[Case]:
    yield Case("the server-side base", SERVER_SIDE)
    yield Case("the client-side base", CLIENT_SIDE)
    for where, good, bad in _values():
        base = CLIENT_SIDE if ".consumer" in where or where == "spec.reads" else SERVER_SIDE
        for value in good:
            yield Case(f"{where} = {_short(value)}", changed(base, {where: value}))
        for value in bad:
            yield Case(f"{where} = {_short(value)}", changed(base, {where: value}), where)
    for required in (
        "spec",
        "spec.targetRef.name",
        "spec.reads[0].name",
        "spec.reads[0].match",
        "spec.reads[0].match.path",
        "spec.reads[1].key.principal.type",
        "spec.reads[1].key.principal.name",
        "spec.writes[0].name",
        "spec.writes[0].match",
        "spec.writes[0].match.methods",
        "spec.writes[0].match.path",
        "spec.writes[0].strategy",
        "spec.writes[0].writeThrough.read",
    ):
        yield Case(f"{required} is missing", changed(SERVER_SIDE, {required: GONE}), required)
        yield Case(f"{required} is null", changed(SERVER_SIDE, {required: None}), required)
    for required in ("selector", "selector.matchLabels", "upstream", "env"):
        path = f"spec.consumer.{required}"
        yield Case(f"{path} is missing", changed(CLIENT_SIDE, {path: GONE}), path)
    for optional in (
        "spec.targetRef.kind",
        "spec.targetRef.sectionName",
        "spec.dataset",
        "spec.mode",
        "spec.rollout",
        "spec.rollout.strategy",
        "spec.store",
        "spec.store.memory",
        "spec.store.memory.maxBytes",
        "spec.store.redis",
        "spec.origin",
        "spec.origin.maxConcurrency",
        "spec.origin.timeout",
        "spec.staleness",
        "spec.staleness.max",
        "spec.staleness.whenExceeded",
        "spec.staleness.writers",
        "spec.staleness.heartbeat",
        "spec.staleness.heartbeat.interval",
        "spec.staleness.heartbeat.failureThreshold",
        "spec.staleness.settle",
        "spec.reads[0].match.methods",
        "spec.reads[0].ttl",
        "spec.reads[0].key",
        "spec.reads[0].key.query",
        "spec.reads[0].key.query.mode",
        "spec.reads[0].key.headers",
        "spec.reads[0].tags",
        "spec.reads[1].key.principal",
        "spec.writes[0].writeThrough.from",
        "spec.writes[0].invalidates",
        "spec.writes[1].writeBehind.journal",
        "spec.writes[1].writeBehind.journal.type",
        "spec.writes[1].writeBehind.status",
        "spec.writes[1].writeBehind.whenFull",
        "spec.writes",
    ):
        yield Case(f"{optional} is missing", changed(SERVER_SIDE, {optional: GONE}))
        yield Case(f"{optional} is null", changed(SERVER_SIDE, {optional: None}))
    for place in (
        "metadata",
        "spec",
        "spec.targetRef",
        "spec.rollout",
        "spec.store",
        "spec.store.memory",
        "spec.store.redis",
        "spec.origin",
        "spec.staleness",
        "spec.staleness.heartbeat",
        "spec.reads[0]",
        "spec.reads[0].match",
        "spec.reads[0].ttl",
        "spec.reads[0].key",
        "spec.reads[0].key.query",
        "spec.reads[1].key.principal",
        "spec.writes[0]",
        "spec.writes[0].match",
        "spec.writes[0].writeThrough",
        "spec.writes[1].writeBehind",
        "spec.writes[1].writeBehind.journal",
    ):
        path = f"{place}.surprise"
        yield Case(f"{place} has an unknown field", changed(SERVER_SIDE, {path: 1}), path)
        if place != "metadata":
            yield Case(f"{place} is a string", changed(SERVER_SIDE, {place: "text"}), place)
            yield Case(f"{place} is a list", changed(SERVER_SIDE, {place: []}), place)
    yield Case("unknown field at the top", changed(SERVER_SIDE, {"surprise": {}}), "surprise")
    yield Case("unknown field in consumer", changed(CLIENT_SIDE, {"spec.consumer.port": 80}), "spec.consumer.port")
    yield Case(
        "unknown field in selector",
        changed(CLIENT_SIDE, {"spec.consumer.selector.matchExpressions": []}),
        "spec.consumer.selector.matchExpressions",
    )
    for future in (
        "spec.notifications",
        "spec.origin.readLag",
        "spec.staleness.lease",
        "spec.staleness.whenUnannounced",
    ):
        yield Case(f"{future} does nothing yet", changed(SERVER_SIDE, {future: "1s"}), future)
    yield from _unions()
    yield from _references()
    yield from _limits()


def _values() -> Iterator[tuple[str, list[object], list[object]]]:
    """Fields with good and bad values, each tried alone."""
    durations: list[object] = ["1.5s", "1d", "5", "", "-1s", "s", "1 s", "1s ", "1s\n", "5S", 5, ["1s"], "0s", "1h" * 9]
    yield "metadata.name", ["a", "a-b.c", "x" * 50], ["x" * 51, "Upper", "-a", "a_b", "a..b"]
    yield "metadata.labels", [{"a": "b"}, None], []
    yield "spec.targetRef.kind", ["Service"], ["Deployment", "service", "", 1]
    yield "spec.targetRef.name", ["p", "p" * 63], ["", "P", "1p", "p-", "p.q", "p" * 64, 5]
    yield "spec.targetRef.sectionName", ["http", "8080"], ["", "HTTP", "-", "a" * 64, 80]
    yield "spec.dataset", ["other", "a.b"], ["", "shop/products", "{x}", "A", "x" * 51]
    yield "spec.mode", ["Bypass"], ["serve", "", "Off", False]
    yield "spec.rollout.strategy", ["None"], ["none", "Recreate"]
    yield (
        "spec.store.memory.maxBytes",
        ["1Mi", "1048576", 1048576, "64Gi", "100M", "2000k", "2048Ki", "1G"],
        [
            "1048575",
            1048575,
            "65Gi",
            "64MB",
            "1.5Gi",
            "-1",
            -1,
            "",
            "64 Mi",
            "1e9",
            "999999999999Gi",
            1.5,
            1e9,
            True,
            "100m",
        ],
    )
    yield "spec.origin.maxConcurrency", [1, 10000], [0, -1, 10001, "100", 1.5, True]
    yield "spec.origin.timeout", ["100ms", "1h", "59m60s", "1m30s500ms"], [*durations, "99ms", "1h1ms"]
    yield "spec.staleness.max", ["1001ms", "24h", "1h1h", "1s1s"], [*durations, "24h1ms", "99ms"]
    yield "spec.staleness.whenExceeded", ["Bypass", "ServeStale", "Fail"], ["Ignore", ""]
    yield "spec.staleness.writers", ["Unknown", "All"], ["Some"]
    yield "spec.staleness.heartbeat.interval", ["50ms", "4999ms"], ["49ms", "5s", "5000ms", "1m1s", "1us", 1]
    yield "spec.staleness.heartbeat.failureThreshold", [1, 100, 3.0], [0, 101, "3", 2.5]
    yield "spec.staleness.settle", ["100ms", "1h"], ["99ms", "2h", ""]
    yield "spec.reads", [[], None], [{}, "x"]
    yield "spec.writes", [[]], [1]
    yield "spec.reads[0]", [], [None, "product", []]
    yield "spec.reads[0].name", ["product"], ["", "Product", "a b", "a_b", "-", 7, "n" * 64]
    yield (
        "spec.reads[0].match.methods",
        [["GET", "HEAD"]],
        [[], ["HEAD"], ["POST"], ["get"], ["GET", "GET"], "GET", [1]],
    )
    yield (
        "spec.reads[1].match.path",
        [
            "/",
            "/{rest*}",
            "/a",
            "/a/",
            "/a/{x}",
            "/a/{x}/",
            "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}",
            "/{a}/{ab}/{abc*}",
            "/a.b/..c/...",
            "/a%20b/%C3%A9/100%25",
            "/@{x}".replace("{x}", "me") + "/a+b,c=d:e!$&'()*",
            "/{_x9}",
            "/" + "a" * 255,
        ],
        [
            "",
            "a",
            "a/b",
            "//",
            "/a//b",
            "/.",
            "/a/./b",
            "/a/..",
            "/a b",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a\\b",
            "/é",
            "/a%2Fb",
            "/a%2fb",
            "/%41",
            "/%c3%a9",
            "/%40",
            "/%3B",
            "/%00",
            "/%5C",
            "/%",
            "/%4",
            "/%zz",
            "/{",
            "/}",
            "/{}",
            "/{*}",
            "/{a-b}",
            "/{1a}",
            "/{a}b",
            "/a{b}",
            "/{a}{b}",
            "/{{a}}",
            "/{a**}",
            "/{a*}/b",
            "/{a*}/",
            "/{x}/{x}",
            "/{x}/{x*}",
            "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
            "/a\n",
            "/" + "a" * 256,
            5,
        ],
    )
    yield "spec.reads[0].ttl.source", ["Policy"], ["Never", "origin"]
    yield "spec.reads[0].ttl.duration", ["1ms", "8760h"], ["0ms", "8760h1ms", "1", 1]
    yield "spec.reads[0].key.query.mode", ["None"], ["Some"]
    yield (
        "spec.reads[1].key.query.names",
        [["page", "utm_source"], ["page[]"], ["a%20b"], [f"n{n}" for n in range(32)]],
        [["a", "a"], "page", [f"n{n}" for n in range(33)]],
    )
    for name in ("", "a=b", "a&b", "a b", "a+b", "a;b", "a%2", "a%2f", "é", "n" * 64, 1):
        yield "spec.reads[1].key.query.names[0]", [], [name]
    yield "spec.reads[1].key.headers", [["Accept", "X-Tenant"]], [["Accept", "Accept"], "Accept"]
    yield "spec.reads[1].key.headers[0]", ["x-a", "X_1"], ["", "a b", "a:", "Authorization", "COOKIE", "h" * 64]
    yield "spec.reads[1].key.principal.type", ["Header"], ["cookie", "Query"]
    yield "spec.reads[1].key.principal.name", ["X-User", "Authorization"], ["", "a b", "a=b", "n" * 64]
    yield "spec.reads[0].tags", [[], ["a:b/c@d=e.f-g_h", "{id}x".replace("{id}", "9")]], [["a", "a"], "a"]
    for tag in (
        "",
        "*",
        "/a",
        ":a",
        "a b",
        "a{b",
        "a}",
        "{id}",
        "a{id*}",
        "a{}",
        "a{other}",
        "a{i}",
        "é",
        "t" * 257,
        3,
    ):
        yield "spec.reads[0].tags[0]", [], [tag]
    yield "spec.reads[0].tags[0]", ["a{id}{id}{id}{id}", "a{id}b"], ["a{id}{id}{id}{id}{id}"]
    yield "spec.reads[1].tags", [["files:{rest}", "u:{user}"]], []
    yield "spec.writes[0].match.methods", [["PUT"], ["POST", "PUT", "PATCH", "DELETE"]], [[], ["GET"], ["PUT", "PUT"]]
    yield "spec.writes[2].match.path", ["/products/", "/x/{y*}"], ["products", "/a;b"]
    yield "spec.writes[2].strategy", [], ["Invalid", ""]
    yield "spec.writes[0].writeThrough.from", ["RequestBody", "Refetch"], ["Response", ""]
    yield "spec.writes[1].writeBehind.journal.type", [], ["PersistentVolume", "Redis", "emptyDir"]
    yield "spec.writes[1].writeBehind.journal.maxEntries", [1, 10_000_000], [0, 10_000_001, "1"]
    yield "spec.writes[1].writeBehind.status", [200, 202, 204], [201, 404, "202", 0]
    yield "spec.writes[1].writeBehind.whenFull", ["Fail"], ["Drop"]
    yield "spec.writes[1].writeBehind", [{}], []
    yield "spec.writes[0].invalidates[0]", [], ["*", "a{other}", "/x"]
    yield (
        "spec.consumer.upstream",
        ["http://a", "http://10.0.0.1:8080", "http://a.b.c:1", "http://a:65535"],
        [
            "https://a",
            "http://a/",
            "http://a/b",
            "a:80",
            "http://",
            "http://A",
            "http://a:0",
            "http://a:65536",
            "http://u@a",
        ],
    )
    yield "spec.consumer.env", [["A", "_b9"]], [[], ["A", "A"], "A"]
    for name in ("", "1A", "A-B", "A=B", "A B", 4):
        yield "spec.consumer.env[0]", [], [name]
    yield (
        "spec.consumer.selector.matchLabels",
        [
            {"app.kubernetes.io/name": "x", "b": ""},
            {f"l{n}": "v" for n in range(16)},
            {"a" * 253 + "/" + "b" * 63: "x"},
        ],
        [
            {},
            {"a b": "x"},
            {"-": "x"},
            {"/a": "x"},
            {"": "x"},
            {"a" * 254 + "/" + "b" * 63: "x"},
            {f"l{n}": "v" for n in range(17)},
        ],
    )
    for value in ("a b", "-a", "v" * 64, 1, True):
        yield "spec.consumer.selector.matchLabels.app", [], [value]


def _unions() -> Iterator[Case]:
    consumer = CLIENT_SIDE["spec"]["consumer"]
    yield Case("both placements", changed(SERVER_SIDE, {"spec.consumer": consumer}), "spec")
    yield Case("no placement", changed(SERVER_SIDE, {"spec.targetRef": GONE}), "spec")
    yield Case("a null placement is none", changed(SERVER_SIDE, {"spec.targetRef": None}), "spec")
    yield Case("a null placement beside a real one", changed(SERVER_SIDE, {"spec.consumer": None}))
    ttl = "spec.reads[0].ttl"
    yield Case("Policy ttl without duration", changed(SERVER_SIDE, {ttl: {"source": "Policy"}}), f"{ttl}.duration")
    yield Case(
        "OriginFirst without duration", changed(SERVER_SIDE, {ttl: {"source": "OriginFirst"}}), f"{ttl}.duration"
    )
    for source in ({}, {"source": "Origin"}):
        yield Case(
            f"duration with {source}", changed(SERVER_SIDE, {ttl: {**source, "duration": "1s"}}), f"{ttl}.duration"
        )
        yield Case(f"no duration with {source}", changed(SERVER_SIDE, {ttl: source}))
    query = "spec.reads[0].key.query"
    for mode in ("Only", "Except"):
        yield Case(f"query {mode} without names", changed(SERVER_SIDE, {query: {"mode": mode}}), f"{query}.names")
        yield Case(
            f"query {mode}, no name", changed(SERVER_SIDE, {query: {"mode": mode, "names": []}}), f"{query}.names"
        )
        yield Case(f"query {mode} with names", changed(SERVER_SIDE, {query: {"mode": mode, "names": ["a"]}}))
    for mode in ("All", "None"):
        names = {"mode": mode, "names": ["a"]}
        yield Case(f"query {mode} with names", changed(SERVER_SIDE, {query: names}), f"{query}.names")
        yield Case(f"query {mode}, empty names", changed(SERVER_SIDE, {query: {"mode": mode, "names": []}}))
    yield Case("query names without mode", changed(SERVER_SIDE, {query: {"names": ["a"]}}), f"{query}.names")
    for index, section in ((0, "writeThrough"), (1, "writeBehind")):
        path = f"spec.writes[{index}].{section}"
        yield Case(f"{section} is missing", changed(SERVER_SIDE, {path: GONE}), path)
        yield Case(f"{section} is null", changed(SERVER_SIDE, {path: None}), path)
        wrong = {f"spec.writes[{index}].strategy": "Invalidate"}
        yield Case(f"{section} with Invalidate", changed(SERVER_SIDE, wrong), path)
    yield Case(
        "writeBehind beside writeThrough",
        changed(SERVER_SIDE, {"spec.writes[0].writeBehind": {}}),
        "spec.writes[0].writeBehind",
    )


def _references() -> Iterator[Case]:
    read = "spec.writes[0].writeThrough.read"
    methods = "spec.writes[0].match.methods"
    yield Case("writeThrough of an unknown read", changed(SERVER_SIDE, {read: "other"}), read, server="spec.writes")
    yield Case("writeThrough without any reads", changed(SERVER_SIDE, {"spec.reads": GONE}), read, server="spec.writes")
    yield Case(
        "writeThrough of a read of another path", changed(SERVER_SIDE, {read: "basket"}), read, server="spec.writes"
    )
    yield Case(
        "writeThrough with another name in the path",
        changed(SERVER_SIDE, {"spec.reads[0].match.path": "/products/{no}", "spec.reads[0].tags": []}),
        read,
        server="spec.writes",
    )
    for field_, value in (("headers", ["Accept"]), ("principal", {"type": "Header", "name": "X-User"})):
        keyed = changed(SERVER_SIDE, {f"spec.reads[0].key.{field_}": value})
        yield Case(f"writeThrough of a read that keys on {field_}", keyed, read, server="spec.writes")
    for method in ("PATCH", "POST"):
        body = {methods: ["PUT", method], "spec.writes[0].writeThrough.from": "RequestBody"}
        yield Case(f"RequestBody with {method}", changed(SERVER_SIDE, body), "spec.writes[0].writeThrough.from")
    for source in ("ResponseBody", "Refetch"):
        body = {methods: ["PATCH", "POST"], "spec.writes[0].writeThrough.from": source}
        yield Case(f"{source} with PATCH and POST", changed(SERVER_SIDE, body))
    behind = {
        "spec.writes[1].match": {"methods": ["PUT"], "path": "/products/{id}"},
        "spec.writes[1].writeBehind": {"read": "product"},
    }
    pending = "spec.writes[1].writeBehind.read"
    yield Case("writeBehind shows the pending value", changed(SERVER_SIDE, behind))
    yield Case(
        "writeBehind of an unknown read", changed(SERVER_SIDE, {**behind, pending: "x"}), pending, server="spec.writes"
    )
    yield Case(
        "writeBehind of a read of another path",
        changed(SERVER_SIDE, {**behind, "spec.writes[1].match.path": "/other/{id}"}),
        pending,
        server="spec.writes",
    )
    for method in ("PATCH", "POST", "DELETE"):
        document = changed(SERVER_SIDE, {**behind, "spec.writes[1].match.methods": [method]})
        yield Case(f"writeBehind shows the pending value of a {method}", document, pending)
    yield Case(
        "two reads of one name",
        changed(SERVER_SIDE, {"spec.reads[+]": {"name": "product", "match": {"path": "/x"}}}),
        "spec.reads[2].name",
        server="spec.reads",
    )
    yield Case(
        "two writes of one name",
        changed(SERVER_SIDE, {"spec.writes[2].name": "update"}),
        "spec.writes[2].name",
        server="spec.writes",
    )
    yield Case("a read and a write of one name", changed(SERVER_SIDE, {"spec.writes[2].name": "product"}))
    yield Case(
        "two reads of one path",
        changed(SERVER_SIDE, {"spec.reads[+]": {"name": "x", "match": {"path": "/products/{id}"}}}),
    )
    yield Case(
        "max at the default, interval above it",
        changed(SERVER_SIDE, {"spec.staleness": {"heartbeat": {"interval": "6s"}}}),
        "spec.staleness.heartbeat.interval",
    )
    yield Case(
        "interval at the default, max below it",
        changed(SERVER_SIDE, {"spec.staleness": {"max": "500ms"}}),
        "spec.staleness.heartbeat.interval",
    )


def _limits() -> Iterator[Case]:
    def reads(count: int) -> list[object]:
        return [{"name": f"r{n}", "match": {"path": f"/r{n}/{{id}}"}, "tags": ["t:{id}"]} for n in range(count)]

    def writes(count: int) -> list[object]:
        return [
            {
                "name": f"w{n}",
                "match": {"methods": ["PUT"], "path": f"/r{n % 64}/{{id}}"},
                "strategy": "WriteThrough",
                "writeThrough": {"read": f"r{n % 64}"},
                "invalidates": [f"t{m}:{{id}}" for m in range(grammar.MAX_TAGS)],
            }
            for n in range(count)
        ]

    most = changed(SERVER_SIDE, {"spec.reads": reads(64), "spec.writes": writes(64)})
    yield Case("as many rules as there may be", most)
    yield Case("too many reads", changed(SERVER_SIDE, {"spec.reads": reads(65), "spec.writes": []}), "spec.reads")
    yield Case("too many writes", changed(most, {"spec.writes": writes(65)}), "spec.writes")
    tags = [f"t{n}" for n in range(grammar.MAX_TAGS + 1)]
    yield Case("too many tags", changed(SERVER_SIDE, {"spec.reads[0].tags": tags}), "spec.reads[0].tags")
    invalidates = "spec.writes[0].invalidates"
    yield Case("too many tags to invalidate", changed(SERVER_SIDE, {invalidates: tags}), invalidates)
    headers = [f"h{n}" for n in range(17)]
    yield Case(
        "too many headers", changed(SERVER_SIDE, {"spec.reads[1].key.headers": headers}), "spec.reads[1].key.headers"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}... ({len(text)})"
