"""Copies the CRDs of crds/ into the chart, where Helm can read them; with --check only says whether they are equal.

python3 charts/sync_crds.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "crds"
COPIES = ROOT / "charts" / "pulsecache" / "files" / "crds"


def differences() -> list[str]:
    """The names of the files that are not equal, or are there only once."""
    names = {path.name for folder in (SOURCES, COPIES) for path in folder.glob("*.yaml")}
    return sorted(name for name in names if _content(SOURCES / name) != _content(COPIES / name))


def copy() -> None:
    COPIES.mkdir(parents=True, exist_ok=True)
    for name in differences():
        content = _content(SOURCES / name)
        if content is None:
            (COPIES / name).unlink()
        else:
            (COPIES / name).write_bytes(content)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        different = differences()
        for name in different:
            sys.stderr.write(f"{name}: crds/ and the chart differ; run python3 charts/sync_crds.py\n")
        return 1 if different else 0
    if arguments:
        sys.stderr.write(str(__doc__))
        return 2
    copy()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
