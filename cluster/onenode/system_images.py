"""The two images that a cluster needs before it has any other: pause and CoreDNS, each a static binary."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from onenode.archive import Layer, Runtime, write_archive, write_layer
from onenode.build import Binaries
from onenode.images import LOCK
from onenode.locking import exclusive

RUNTIMES = {
    "pause": Runtime(["/pause"]),
    "coredns": Runtime(["/coredns"]),
}


def ensure(binaries: Binaries, cache: Path) -> dict[str, Path]:
    """Their archives by name, made when the binaries are newer."""
    return {
        f"pulsecache/{name}:dev": _ensure(name, runtime, binaries, cache / "images")
        for name, runtime in RUNTIMES.items()
    }


def _ensure(name: str, runtime: Runtime, binaries: Binaries, folder: Path) -> Path:
    binary = binaries.path(name)
    key = hashlib.sha256(f"{binary.parent.name} {runtime}".encode()).hexdigest()[:16]
    archive = folder / f"{name}-{key}.tar"
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK, "another build of images"), tempfile.TemporaryDirectory(dir=folder) as scratch:
        tar = Path(scratch) / "layer.tar"
        write_layer(tar, {f"/{name}": binary})
        write_archive(archive, f"pulsecache/{name}:dev", [Layer.of(tar)], runtime)
    return archive
