"""One at a time, among all processes of the machine; the kernel releases a lock when its process ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onenode.console import Progress


@contextmanager
def exclusive(lock: Path, waiting_for: str) -> Iterator[None]:
    """Hold the lock file `lock`; `waiting_for` says what the person has to wait for meanwhile."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Progress(f"waiting for {waiting_for}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
