"""A list and a watch that keep a set of objects true, for as long as the process lives.

Every LIST hands over the whole set, so that what was deleted in a gap is gone; in between come single changes. The
watch survives server time-outs, bookmarks, lost history (410: list again), restarts and silence of the API server (a
connection without event or bookmark for `Timing.silence_s` is made anew), with back-off and jitter. What the objects
mean, and what to keep of them, is up to the sink.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient

log = logging.getLogger(__name__)

Object = Mapping[str, Any]

_PAGE = 500
_METADATA = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
"""Of each object only its metadata: what the rest weighs is not even sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    name: str
    """For logs and metrics, for example `cachepolicies`."""
    path: str
    """Of the collection, for example `/api/v1/services`."""
    field_selector: str | None = None
    label_selector: str | None = None
    metadata_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations in seconds."""

    connect_s: float = 10.0
    list_s: float = 60.0
    """For one page of a LIST."""
    watch_s: float = 300.0
    """After which the server is asked to end a watch; each one varies by a fifth."""
    silence_s: float = 100.0
    """API servers send a bookmark about each minute in which something of the kind has changed: after a longer silence
    the watch is made anew."""
    backoff_first_s: float = 0.5
    backoff_max_s: float = 10.0
    short_s: float = 5.0
    """A watch that ends sooner, and without an event, counts as a failure."""


class Sink(Protocol):
    """Where the objects go. Called in the event loop; must not raise, or the watch ends with that error."""

    def replace(self, objects: Sequence[Object]) -> None:
        """These are all there are."""

    def put(self, item: Object) -> None:
        """This one is new, or changed."""

    def drop(self, item: Object) -> None:
        """This one is gone."""


class _Refused(Exception):
    """The API server answered, but with an error."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(f"{status} {message}")


_TROUBLE = (_Refused, aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""What passes by itself, or by a new LIST. ValueError: an answer that is not JSON, or has not the shape of one."""
_RELIST_AFTER = 3
"""Failures in a row after which the position is not trusted any more (etcd may have been restored from a backup)."""


class Watch:
    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        sink: Sink,
        *,
        keep: Callable[[Object], Object] = lambda item: item,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keep` says what of an object is worth its memory; it is applied page by page."""
        self.resource = resource
        self.listed = asyncio.Event()
        """Set by the first complete LIST, and then for ever: a set that is old is better than none."""
        self._client = client
        self._sink = sink
        self._keep = keep
        self._timing = timing or Timing()
        self._clock = clock
        self._version: str | None = None
        self._failures = 0
        self._last_event = clock()

    def last_event_age_s(self) -> float:
        """Since the API server was last heard of (a LIST, a watch that it opened, an event, a bookmark)."""
        return self._clock() - self._last_event

    async def run(self) -> NoReturn:
        """Lists and watches until cancelled."""
        while True:
            retry_after_s = 0.0
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except _TROUBLE as error:
                self._failures += 1
                gone = isinstance(error, _Refused) and error.status == 410
                if gone or self._failures % _RELIST_AFTER == 0:
                    self._version = None
                if isinstance(error, _Refused):
                    retry_after_s = error.retry_after_s
                # History that is lost in the course of things, or one cut connection, is nobody's trouble.
                level = logging.WARNING if self._failures > 1 else logging.INFO
                log.log(level, "the watch of %s was interrupted: %s", self.resource.name, _told(error))
            await asyncio.sleep(max(retry_after_s, self._backoff_s()))

    def _backoff_s(self) -> float:
        if self._failures == 0:
            return 0.0
        longest = min(self._timing.backoff_max_s, self._timing.backoff_first_s * 2 ** min(self._failures - 1, 16))
        return random.uniform(longest / 2, longest)  # noqa: S311 (spreads load, keeps no secret)

    def _heard(self, version: str | None) -> None:
        self._last_event = self._clock()
        if version:
            self._version = version

    async def _list(self) -> None:
        found: list[Object] = []
        version: str | None = None
        token: str | None = None
        timeout = aiohttp.ClientTimeout(total=self._timing.list_s, sock_connect=self._timing.connect_s)
        while True:
            query = {"limit": str(_PAGE)} | ({"continue": token} if token else {})
            async with self._get(query, "PartialObjectMetadataList", timeout) as response:
                page = _object(await response.read())
            found += (self._keep(item) for item in page.get("items") or ())
            metadata = _dict(page.get("metadata"))
            version, token = metadata.get("resourceVersion"), metadata.get("continue")
            if not token:
                break
        if not version:
            raise ValueError("the LIST has no resourceVersion")
        self._sink.replace(found)
        self._heard(version)
        self.listed.set()
        log.debug("listed %d %s at version %s", len(found), self.resource.name, version)

    async def _watch(self) -> None:
        """Hands over events until the server ends the watch."""
        timing = self._timing
        seconds = int(timing.watch_s * random.uniform(0.8, 1.2)) or 1  # noqa: S311 (spreads load)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": self._version or "",
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timing.connect_s, sock_read=timing.silence_s)
        async with self._get(query, "PartialObjectMetadata", timeout) as response:
            opened = self._clock()
            self._heard(None)
            lasted = eventful = False
            try:
                eventful = await self._events(response)
            finally:
                if lasted := self._clock() - opened >= timing.short_s:
                    self._failures = 0
            if not (lasted or eventful):
                self._failures += 1

    async def _events(self, response: aiohttp.ClientResponse) -> bool:
        """Until the server ends them; whether there was one."""
        rest, eventful = b"", False
        try:
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._event(_object(line))
                        eventful = True
        except aiohttp.SocketTimeoutError:
            # The connection is dead, or nothing of the kind changes, and then there are no bookmarks either. Nobody can
            # tell the two apart; a new watch costs little, and starts without delay.
            log.debug("the watch of %s was silent for %g s", self.resource.name, self._timing.silence_s)
        return eventful

    def _event(self, event: dict[str, Any]) -> None:
        kind, item = event.get("type"), _dict(event.get("object"))
        if kind == "ERROR":
            raise _Refused(int(item.get("code") or 500), str(item.get("message") or item))
        version = _dict(item.get("metadata")).get("resourceVersion")
        match kind:
            case "ADDED" | "MODIFIED":
                self._sink.put(self._keep(item))
            case "DELETED":
                self._sink.drop(self._keep(item))
        self._heard(version)
        self._failures = 0

    @asynccontextmanager
    async def _get(
        self, query: dict[str, str], metadata: str, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        resource = self.resource
        if resource.field_selector:
            query["fieldSelector"] = resource.field_selector
        if resource.label_selector:
            query["labelSelector"] = resource.label_selector
        accept = _METADATA.format(metadata) if resource.metadata_only else "application/json"
        method, url, headers, _, _ = await self._client.param_serialize(
            "GET",
            resource.path,
            query_params=list(query.items()),
            header_params={"Accept": accept},
            auth_settings=["BearerToken"],
        )
        answer = await self._client.call_api(method, url, headers, _request_timeout=timeout)
        async with answer.response as response:
            if response.status != 200:
                raise await _refusal(response)
            yield response


async def _refusal(response: aiohttp.ClientResponse) -> _Refused:
    text = (await response.content.read(2000)).decode(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.strip() or str(response.reason)
    after = response.headers.get("Retry-After", "")
    return _Refused(response.status, message, float(after) if after.isdecimal() else 0.0)


def _object(text: bytes) -> dict[str, Any]:
    return _dict(json.loads(text))


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"the API server sent {type(value).__name__} where an object belongs")
    return value


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
