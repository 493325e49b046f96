"""What the running parts tell of themselves: to people, to scrapes, to the controller."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from pulsecache_sidecar.adapters.prometheus import DatasetGauges, Gauges, PolicyGauges
from pulsecache_sidecar.config import Config
from pulsecache_sidecar.engine.active import Active, Actives
from pulsecache_sidecar.engine.coherence import StalenessReport, State
from pulsecache_sidecar.engine.policies import PolicyBook
from pulsecache_sidecar.engine.write_behind import PolicyCounts, WriteBehind
from pulsecache_sidecar.ports import Clock, DeadLetter


class Reports:
    def __init__(
        self, config: Config, clock: Clock, book: PolicyBook, actives: Actives, write_behind: WriteBehind
    ) -> None:
        self._config = config
        self._clock = clock
        self._book = book
        self._actives = actives
        self._write_behind = write_behind
        self._states: dict[str, tuple[State, str]] = {}

    def of_policy(self, key: str) -> dict[str, Any]:
        """What this process runs for a policy; changes only when something changes, never with time alone."""
        in_force = self._book.in_force(key)
        told: dict[str, Any] = {
            "pod": self._config.pod.name,
            "policy": key,
            "generation": in_force.generation,
            "sha256": in_force.sha256,
            "error": in_force.error,
        }
        if (active := self._actives.get(key)) is not None:
            report = active.coherence.report(self._clock.now())
            told |= {
                "dataset": report.dataset,
                "mode": active.policy.mode.value,
                "state": report.state.value.capitalize(),
                "since": self._since(key, report),
                "lostPublishers": len(report.lost),
            }
        return told

    def policies(self) -> list[dict[str, Any]]:
        return [self.of_policy(key) for key in self._book.keys]

    def staleness(self) -> dict[str, Any]:
        return {
            "pod": self._config.pod.name,
            "datasets": [self._dataset(active) for active in self._actives.all().values()],
            "policies": self.policies(),
        }

    def _dataset(self, active: Active) -> dict[str, Any]:
        report = active.coherence.report(self._clock.now())
        return {
            "dataset": report.dataset,
            "policy": active.policy.key,
            "state": report.state.value,
            "since": self._time(report.since_s),
            "bound_s": _rounded_up(report.bound_s),
            "limit_s": report.limit_s,
            "heartbeat_age_s": _rounded_up(report.heartbeat_age_s),
            "lost_publishers": list(report.lost),
            "epoch": report.epoch,
            "open_writes": report.open_writes,
            "doubts": report.doubts,
        }

    def journal(self) -> list[dict[str, Any]]:
        return [{"policy": policy, **_counts(counts)} for policy, counts in self._write_behind.counts().items()]

    async def dead_letters(self) -> list[dict[str, Any]]:
        return [_letter(letter) for letter in await self._write_behind.dead_letters()]

    def gauges(self) -> Gauges:
        now = self._clock.now()
        actives = self._actives.all()
        counts = self._write_behind.counts()
        none = PolicyCounts()
        datasets = []
        for active in actives.values():
            report = active.coherence.report(now)
            datasets.append(
                DatasetGauges(
                    report.dataset, report.state.value, report.limit_s, report.bound_s, report.heartbeat_age_s
                )
            )
        memories = [active.serving.memory for active in actives.values()]
        return Gauges(
            datasets=tuple(datasets),
            policies=tuple(
                PolicyGauges(
                    key,
                    self._book.in_force(key).generation,
                    counts.get(key, none).pending,
                    counts.get(key, none).oldest_age_s,
                    counts.get(key, none).dead_letters,
                )
                for key in self._book.keys
            ),
            memory_bytes=sum(memory.size_bytes for memory in memories),
            memory_entries=sum(len(memory) for memory in memories),
            memory_limit_bytes=sum(memory.limit_bytes for memory in memories),
        )

    def _since(self, key: str, report: StalenessReport) -> str:
        """The wall clock's time of the last change of state, read once: derived anew it would waver by a second."""
        known = self._states.get(key)
        if known is None or known[0] is not report.state:
            known = self._states[key] = (report.state, self._time(report.since_s))
        return known[1]

    def _time(self, ago_s: float) -> str:
        then = datetime.fromtimestamp(self._clock.wall(), UTC) - timedelta(seconds=ago_s)
        return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rounded_up(seconds: float | None) -> float | None:
    return None if seconds is None else math.ceil(seconds * 1000) / 1000


def _counts(counts: PolicyCounts) -> dict[str, Any]:
    return {
        "pending": counts.pending,
        "oldest_age_s": _rounded_up(counts.oldest_age_s),
        "dead_letters": counts.dead_letters,
        "waits_for": counts.waits_for,
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    write = letter.write
    return {
        "id": write.id,
        "policy": write.policy,
        "rule": write.rule,
        "method": write.request.method,
        "target": write.request.target.decode("latin-1"),
        "idempotency_key": write.idempotency_key,
        "accepted": datetime.fromtimestamp(write.accepted_wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "attempts": write.attempts,
        "status": letter.status,
        "detail": letter.detail,
    }
