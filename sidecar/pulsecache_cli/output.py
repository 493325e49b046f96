"""Tables and JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell."""
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """Without control characters: some of what is shown comes from clients, and a terminal obeys escape sequences."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _text(cell: object) -> str:
    return "-" if cell is None or cell == "" else plain(str(cell))
