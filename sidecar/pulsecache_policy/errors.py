"""What is wrong with a document, each with the place where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyError:
    """`path` is written as Kubernetes writes it: `spec.reads[0].match.path`."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class InvalidPolicy(Exception):
    """A document that is no valid CachePolicy; `errors` has every reason, not just the first."""

    def __init__(self, errors: tuple[PolicyError, ...]) -> None:
        self.errors = errors
        super().__init__("; ".join(map(str, errors)))
