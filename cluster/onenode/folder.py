"""Folders that are made and deleted as a whole, and the care that it is never someone else's."""

from __future__ import annotations

import shutil
from pathlib import Path

from onenode.console import ClusterError

MARK = ".pulsecache-cluster"


def claim(directory: Path) -> None:
    """Make `directory` ours. Raises ClusterError when it already holds what we did not put there."""
    if directory.is_dir() and not (directory / MARK).exists() and any(directory.iterdir()):
        raise ClusterError(f"{directory} holds files that are not a cluster's: name an empty or a new folder")
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    (directory / MARK).touch()


def remove(directory: Path) -> None:
    """Delete `directory` if it is ours. The mark goes last: what an interrupted removal leaves is still ours."""
    if not (directory / MARK).exists():
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    (directory / MARK).unlink()
    directory.rmdir()
