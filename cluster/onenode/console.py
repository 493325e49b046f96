"""What a person sees: lines with elapsed time on standard error, so that standard output stays for results."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable


class ClusterError(Exception):
    """Something the person at the terminal has to know about: what happened, to what, and what to do."""


STARTED = time.monotonic()


def duration(seconds: float) -> str:
    """A length of time as people read it: `8.1 s`, `2 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def say(message: str) -> None:
    print(f"[{duration(time.monotonic() - STARTED):>9}] {message}", file=sys.stderr, flush=True)


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command of the command line and return its exit status; errors become words."""
    try:
        return command() or 0
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class Progress:
    """A step that takes long: one line that renews itself on a terminal, a line every `every_s` seconds elsewhere."""

    def __init__(self, title: str, *, every_s: float = 20.0) -> None:
        self._title = title
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._every_s = 0.5 if self._terminal else every_s
        self._detail = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def update(self, detail: str) -> None:
        self._detail = detail

    def __enter__(self) -> Progress:
        say(self._title)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._done.set()
        self._thread.join()
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if error is None:
            say(f"{self._title}: done in {duration(time.monotonic() - self._started)}")

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            line = f"{self._title}: {self._detail or 'working'}, {duration(time.monotonic() - self._started)}"
            if self._terminal:
                print(f"\r\x1b[K{line[:150]}", end="", file=sys.stderr, flush=True)
            else:
                say(line)
