"""What a valid policy is warned about."""

from __future__ import annotations

from typing import Any

from policies import policy, read, write
from pulsecache_policy.parse import warnings

HEARD: dict[str, Any] = {"store": {"redis": {}}, "staleness": {"writers": "All", "max": "30s"}}


def paths(**spec: Any) -> list[str]:
    return [warning.path for warning in warnings(policy(**spec))]


def test_a_sound_policy_is_not_warned() -> None:
    assert paths(reads=[read("/a", tags=["a"])], writes=[write("/a", invalidates=["a"])], **HEARD) == []


def test_max_below_settle() -> None:
    spec = {"store": {"redis": {}}, "staleness": {"writers": "All", "max": "5s", "settle": "6s"}}
    assert paths(writes=[write("/a")], **spec) == ["spec.staleness.max"]
    assert paths(reads=[read("/a")], **spec) == [], "without writes nothing has to settle"


def test_max_over_before_a_missing_heartbeat_is_noticed() -> None:
    assert paths(staleness={"max": "3s"}) == ["spec.staleness.max"]
    assert paths(staleness={"max": "3001ms"}) == []


def test_a_lifetime_above_max_while_writers_are_unknown() -> None:
    long = read("/a", ttl={"source": "Policy", "duration": "1m"})
    assert paths(reads=[read("/b", "b"), long]) == ["spec.reads[1].ttl.duration"]
    assert paths(reads=[long], **HEARD) == []


def test_all_writers_without_redis() -> None:
    assert paths(staleness={"writers": "All", "max": "30s"}) == ["spec.staleness.writers"]


def test_a_rule_that_is_never_reached() -> None:
    assert paths(reads=[read("/{rest*}", "rest"), read("/a/{x}", "x"), read("/", "root")]) == ["spec.reads[1].match"]
    assert paths(writes=[write("/{x}", "PUT", name="a"), write("/b", "PUT", "POST", name="b")]) == []
    assert paths(writes=[write("/{x}", "PUT", "POST", name="a"), write("/b", "PUT", name="b")]) == [
        "spec.writes[1].match"
    ]


def test_a_tag_that_no_read_rule_carries() -> None:
    reads = [read("/p/{id}", tags=["product:{id}", "products"])]

    def dead(tag: str, **spec: Any) -> bool:
        return bool(paths(reads=reads, writes=[write("/w/{x}", invalidates=[tag])], **spec))

    assert dead("product")
    assert dead("prodcut:{x}")
    assert dead("products:{x}")
    assert not dead("products")
    assert not dead("product:{x}")
    assert not dead("product:42")
    assert not dead("product:4{x}")
    assert not dead("prodcut:{x}", dataset="shared"), "another policy of the dataset may carry it"
