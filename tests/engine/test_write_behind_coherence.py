"""A pending write is not yet a change of the data: with the real coherence, it becomes one when it is flushed."""

from __future__ import annotations

import asyncio

from pulsecache_policy.model import Staleness
from pulsecache_sidecar.adapters.memory_journal import MemoryJournal
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_behind import WriteBehind
from virtual_time import VirtualClock, virtual_time
from write_behind_world import Answer, ScriptedOrigin, Unobserved, a_policy, put, until_empty

TAGS = ("products", "/products/1")


class Shop:
    def __init__(self, answers: list[Answer]) -> None:
        self.origin = ScriptedOrigin(lambda arrival: answers.pop(0))
        self.origin.hold = asyncio.Event()
        clock = VirtualClock()
        self.coherence = Coherence(
            "shop/products",
            Staleness(settle_s=30.0),
            None,
            publisher_id="me",
            publishes=True,
            clock=clock,
            observer=Unobserved(),
        )
        upstream = Upstream(self.origin, clock, Unobserved())
        target = Target.of(upstream, a_policy(), self.coherence)
        self.write_behind = WriteBehind(MemoryJournal(), lambda policy: target, clock)

    async def __aenter__(self) -> Shop:
        await self.coherence.start()
        await self.write_behind.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.write_behind.stop()
        await self.coherence.stop()

    def entry_usable(self) -> bool:
        """Whether what was fetched before the write could still be served."""
        return self.coherence.usable(self.validity, TAGS)

    async def fetch(self) -> None:
        now = asyncio.get_running_loop().time()
        self.validity = self.coherence.fetched(self.coherence.ticket(now))


@virtual_time
async def test_an_entry_is_usable_until_the_write_took_effect() -> None:
    async with Shop([200]) as shop:
        await shop.fetch()
        await put(shop.write_behind, b"v2", shows="key")
        await asyncio.sleep(1.0)
        assert shop.entry_usable()
        assert shop.origin.hold is not None
        shop.origin.hold.set()
        await until_empty(shop.write_behind)
        assert not shop.entry_usable()
        await shop.fetch()
        assert shop.entry_usable()


@virtual_time
async def test_a_refused_write_leaves_the_entry_usable() -> None:
    async with Shop([422]) as shop:
        await shop.fetch()
        await put(shop.write_behind, b"v2")
        assert shop.origin.hold is not None
        shop.origin.hold.set()
        await until_empty(shop.write_behind)
        assert shop.entry_usable()


@virtual_time
async def test_after_an_attempt_without_outcome_nothing_of_it_is_usable_until_it_has_settled() -> None:
    async with Shop([500, 422]) as shop:
        await put(shop.write_behind, b"v2")
        assert shop.origin.hold is not None
        shop.origin.hold.set()
        await until_empty(shop.write_behind)
        await shop.fetch()
        assert not shop.entry_usable()
        await asyncio.sleep(40.0)
        await shop.fetch()
        assert shop.entry_usable()
