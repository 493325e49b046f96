"""Requests as write-behind takes them, for tests."""

from __future__ import annotations

import os
from pathlib import Path

from pulsecache_sidecar.core.http.message import Fields, RequestHead
from pulsecache_sidecar.ports import PendingWrite


def child_environment() -> dict[str, str]:
    """For a Python process that imports what this one imports: the helpers here, and the packages under test."""
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def request(method: str = "PUT", target: bytes = b"/products/1", fields: Fields = ((b"host", b"shop"),)) -> RequestHead:
    return RequestHead(method, target, fields, peer="10.0.0.9")


def pending(
    body: bytes = b"{}",
    *,
    order_key: str = "/products/1",
    policy: str = "shop/products",
    rule: str = "update",
    head: RequestHead | None = None,
    shows: str | None = None,
    tags: tuple[str, ...] = ("products",),
) -> PendingWrite:
    """A write that no journal has seen yet."""
    return PendingWrite(
        id=0,
        policy=policy,
        rule=rule,
        order_key=order_key,
        idempotency_key="5f0c3f3e-0000-4000-8000-000000000001",
        request=head or request(),
        body=body,
        tags=tags,
        accepted_wall=1_700_000_000.25,
        shows=shows,
    )
