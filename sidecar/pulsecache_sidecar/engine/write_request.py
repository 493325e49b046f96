"""An unsafe request and what it touches: the tags it changes, the order it keeps, the entry it refreshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pulsecache_policy.match import WriteMatch, path_tag
from pulsecache_policy.model import RepresentationSource
from pulsecache_sidecar.core.http.locations import changed_targets
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.engine.serving import OpenWrite, Read, Serving
from pulsecache_sidecar.ports import Body

WHOLE_DATASET = ("*",)
"""What is changed where a path cannot be named."""


@dataclass(frozen=True, slots=True)
class Write:
    """An unsafe request, with the rule that covers it, if one does."""

    serving: Serving
    request: RequestHead
    match: WriteMatch | None
    read: Read | None
    """The entry that it refreshes, or shows itself in while it is pending."""

    @property
    def tags(self) -> tuple[str, ...]:
        if self.match is None:
            tag = path_tag(self.request.path)
            return WHOLE_DATASET if tag is None else (tag,)
        refreshed = self.read.tags if self.read is not None else ()
        return tuple(dict.fromkeys((*self.match.tags, *refreshed)))

    @property
    def order_key(self) -> str:
        """Writes of one policy to one resource reach the origin one after the other."""
        return f"{self.serving.policy.policy.key} {path_tag(self.request.path) or self.request.path}"

    @property
    def rule_name(self) -> str:
        return self.match.rule.name if self.match is not None else ""

    def also_changed(self, head: ResponseHead) -> tuple[str, ...]:
        """Tags of what Location and Content-Location name."""
        found = (path_tag(target.split("?", 1)[0]) for target in changed_targets(self.request, head.fields))
        return tuple(dict.fromkeys("*" if tag is None else tag for tag in found))

    @property
    def source(self) -> RepresentationSource | None:
        """Where the new representation comes from; None where the rule only invalidates, and for DELETE, which leaves
        none."""
        rule = self.match.rule if self.match is not None else None
        if rule is None or rule.write_through is None or self.read is None or self.request.method == "DELETE":
            return None
        return rule.write_through.source


class _Telling:
    """A request's body that says when its last byte has been taken by the kernel: the origin's connection asks for more
    only then."""

    def __init__(self, body: Body, opened: OpenWrite, now: Callable[[], float]) -> None:
        self._body = body
        self._opened = opened
        self._now = now

    def __aiter__(self) -> _Telling:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._opened.sent(self._now())
            raise


def telling(body: Body | None, opened: OpenWrite, now: Callable[[], float]) -> Body | None:
    """Without a body the head is all, and the time of the answer counts: later than true, which is safe."""
    return None if body is None else _Telling(body, opened, now)
