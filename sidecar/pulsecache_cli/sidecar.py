"""The commands that ask one sidecar, at its admin listener: staleness, journal, dead letters, purge."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from pulsecache_cli.errors import CommandFailed
from pulsecache_cli.output import plain, print_json, print_table
from pulsecache_policy.paths import path_tag

TIMEOUT_S = 10.0
WHOLE_DATASET = "*"


class Sidecar:
    """One sidecar's admin listener. Most of it answers on loopback only: see kubectl.Kubectl.forwarded."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise CommandFailed(f"{url} is no address of an admin listener: {error}") from error
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise CommandFailed(f"{url} is no address of an admin listener: it looks like http://127.0.0.1:15090")
        self._url = url
        self._host, self._port = parts.hostname, port or 80

    def ask(self, method: str, target: str) -> Any:
        """The JSON of the answer. Raises CommandFailed with what the sidecar said."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, target, headers={"Accept": "application/json"})
            response = connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(
                f"no sidecar answers at {self._url}: {error or type(error).__name__}."
                " Name another address with --admin, or a pod with --pod NAMESPACE/NAME"
            ) from error
        finally:
            connection.close()
        try:
            said = json.loads(body)
        except ValueError as error:
            raise CommandFailed(f"{self._url} answered {status} and no JSON: is it an admin listener?") from error
        if status >= 400:
            raise CommandFailed(_problem(status, said))
        return said


def staleness(sidecar: Sidecar, *, as_json: bool) -> int:
    said = sidecar.ask("GET", "/-/staleness")
    if as_json:
        print_json(said)
        return 0
    print_table(
        ("DATASET", "STATE", "SINCE", "BOUND", "LIMIT", "HEARTBEAT", "OPEN WRITES", "LOST PUBLISHERS"),
        [
            [
                one.get("dataset"),
                one.get("state"),
                one.get("since"),
                _seconds(one.get("bound_s")),
                _seconds(one.get("limit_s")),
                _seconds(one.get("heartbeat_age_s")),
                one.get("open_writes"),
                ", ".join(map(str, one.get("lost_publishers") or ())),
            ]
            for one in _objects(said.get("datasets") if isinstance(said, Mapping) else None)
        ],
    )
    return 0


def journal(sidecar: Sidecar, *, as_json: bool) -> int:
    said = sidecar.ask("GET", "/-/journal")
    if as_json:
        print_json(said)
        return 0
    print_table(
        ("POLICY", "PENDING", "OLDEST", "DEAD LETTERS", "WAITS FOR"),
        [
            [
                one.get("policy"),
                one.get("pending"),
                _seconds(one.get("oldest_age_s")),
                one.get("dead_letters"),
                one.get("waits_for"),
            ]
            for one in _objects(said)
        ],
    )
    return 0


def dead_letters(sidecar: Sidecar, *, as_json: bool) -> int:
    said = sidecar.ask("GET", "/-/dead-letters")
    if as_json:
        print_json(said)
        return 0
    names = ("id", "policy", "rule", "method", "target", "status", "attempts", "accepted", "detail")
    print_table([name.upper() for name in names], [[one.get(name) for name in names] for one in _objects(said)])
    return 0


def retry(sidecar: Sidecar, letters: Sequence[int]) -> int:
    for letter in letters:
        sidecar.ask("POST", f"/-/dead-letters/{letter}/retry")
        print(f"{letter}: waits for the origin again, after what is already waiting")
    return 0


def drop(sidecar: Sidecar, letters: Sequence[int]) -> int:
    for letter in letters:
        sidecar.ask("DELETE", f"/-/dead-letters/{letter}")
        print(f"{letter}: dropped; this write never reaches the origin")
    return 0


def purge(sidecar: Sidecar, dataset: str, tag: str | None) -> int:
    """`tag` None: the whole dataset. A path names everything cached for it, however it is spelled."""
    name = WHOLE_DATASET if tag is None else path_tag(tag.partition("?")[0]) if tag.startswith("/") else tag
    if name is None:
        raise CommandFailed(f"{tag} is no path that can be cached; --all purges the whole dataset")
    sidecar.ask("POST", f"/-/purge?{urlencode({'dataset': dataset, 'tag': name})}")
    print(plain(f"{dataset}: nothing of {'it' if tag is None else name} is answered from the cache until fetched anew"))
    return 0


def _problem(status: int, said: object) -> str:
    """RFC 9457."""
    if not isinstance(said, Mapping):
        return f"the sidecar answered {status}"
    told = ": ".join(str(said[name]) for name in ("title", "detail") if said.get(name))
    return plain(told or f"the sidecar answered {status}")


def _objects(said: object) -> list[Mapping[str, Any]]:
    return [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []


def _seconds(value: object) -> str | None:
    return f"{value:g}s" if isinstance(value, int | float) else None
