"""How the demo speaks: chapters with elapsed time, facts as they are measured, and a table at the end.

A step that did not happen is a `Broken` promise: the demo ends with status 1 and says which.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

WIDTH = 100


class Broken(Exception):
    """Something that the story tells did not happen."""


@dataclass
class Story:
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _chapters: int = 0

    def elapsed(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        self._chapters += 1
        print(f"\n[{self.elapsed()}] {self._chapters}. {title}", flush=True)
        started = time.monotonic()
        yield
        print(f"    ({time.monotonic() - started:.0f} s)", flush=True)

    def say(self, text: str) -> None:
        print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "), flush=True)

    def show(self, text: str) -> None:
        """Output as it came, indented."""
        print(textwrap.indent(text.rstrip(), "      | "), flush=True)

    def progress(self, text: str) -> None:
        print(f"    ... {text}", flush=True)

    def measured(self, what: str, value: str, note: str = "") -> None:
        self.rows.append((what, value, note))
        print(f"    => {what}: {value}" + (f" ({note})" if note else ""), flush=True)

    def must(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(what)

    def end(self) -> None:
        widths = [max(len(row[column]) for row in self.rows) for column in range(2)]
        print(f"\n[{self.elapsed()}] What was measured\n")
        for what, value, note in self.rows:
            print(f"    {what:<{widths[0]}}  {value:>{widths[1]}}  {note}".rstrip())
        sys.stdout.flush()
