"""Requests to the shop as a user sends them, one by one or all the time, and what the answers say of themselves."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_STALENESS = re.compile(r"(?P<bound>[0-9.]+|unknown)(?:;state=(?P<state>[a-z]+))?(?P<pending>;pending)?")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def bound_s(self) -> float | None:
        """What Pulse-Staleness says; None where it says unknown or is not there."""
        found = _STALENESS.match(self.headers.get("pulse-staleness", ""))
        return None if found is None or found["bound"] == "unknown" else float(found["bound"])

    @property
    def state(self) -> str | None:
        found = _STALENESS.match(self.headers.get("pulse-staleness", ""))
        return None if found is None else found["state"]

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "")

    @property
    def hit(self) -> bool:
        return "hit" in self.cache_status.split(";")[1].strip().split("=") if ";" in self.cache_status else False


def request(
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    """One request on its own connection; a body that is no bytes goes as JSON. Raises OSError, HTTPException."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    started = time.monotonic()
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Connection": "close", **({"Content-Type": "application/json"} if content is not None else {})}
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=content, headers={**sent, **(headers or {})})
        response = connection.getresponse()
        received = response.read()
        fields: dict[str, str] = {}
        for name, value in response.getheaders():
            fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
        return Answer(response.status, fields, received, time.monotonic() - started)
    finally:
        connection.close()


def get(url: str, **headers: str) -> Answer:
    return request("GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class Traffic:
    """What a client saw that never stopped asking."""

    answers: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    hits: int = 0
    states: Counter[str] = field(default_factory=Counter)
    largest_bound_s: float = 0.0

    def note(self, answer: Answer) -> None:
        self.answers += 1
        self.statuses[answer.status] += 1
        if answer.status >= 500:
            self.failures.append(f"{answer.status} {answer.body[:200]!r}")
        self.hits += answer.hit
        if answer.state:
            self.states[answer.state] += 1
        self.largest_bound_s = max(self.largest_bound_s, answer.bound_s or 0.0)


@contextmanager
def traffic(next_url: Callable[[int], str], *, clients: int = 2, pause_s: float = 0.02) -> Iterator[Traffic]:
    """Clients that ask `next_url(n)` all the time until the block ends; each request is on a new connection."""
    seen = Traffic()
    lock = threading.Lock()
    stop = threading.Event()

    def client(number: int) -> None:
        n = number
        while not stop.is_set():
            url = next_url(n)
            n += clients
            try:
                answer = request("GET", url, timeout_s=15)
            except (OSError, http.client.HTTPException) as error:
                with lock:
                    seen.failures.append(f"{url}: {error!r}")
            else:
                with lock:
                    seen.note(answer)
            stop.wait(pause_s)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
