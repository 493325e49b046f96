"""Container images without an engine: layers as tar files, and the docker-archive that carries them.

Everything is reproducible: the same content gives the same bytes, so a digest names what is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Layer:
    """A tar file of a part of the root file system; `digest` is the SHA-256 of its bytes."""

    tar: Path
    digest: str

    @classmethod
    def of(cls, tar: Path) -> Layer:
        """The digest is kept next to a tar, because a base layer has hundreds of megabytes."""
        note = tar.with_name(tar.name + ".sha256")
        if not note.exists() or note.stat().st_mtime_ns < tar.stat().st_mtime_ns:
            with tar.open("rb") as source:
                note.write_text(hashlib.file_digest(source, "sha256").hexdigest())
        return cls(tar, note.read_text())


@dataclass(frozen=True)
class Runtime:
    """How an image starts."""

    entrypoint: Sequence[str]
    user: str = "65532:65532"
    environment: Mapping[str, str] | None = None
    directory: str = "/"

    def document(self) -> dict[str, object]:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **(self.environment or {}),
        }
        return {
            "Entrypoint": list(self.entrypoint),
            "User": self.user,
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "WorkingDir": self.directory,
        }


def write_layer(tar: Path, files: Mapping[str, Path]) -> None:
    """A layer with `files`: path in the image -> file or folder. Owned by root, readable by everyone, no dates."""
    partial = tar.with_name(tar.name + ".partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as out:
        made: set[str] = set()
        for target, source in sorted(files.items()):
            for path in [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]:
                name = str(Path(target.lstrip("/"), path.relative_to(source)))
                _add_parents(out, name, made)
                _add(out, name, path, made)
    partial.replace(tar)


def write_archive(archive: Path, name: str, layers: Sequence[Layer], runtime: Runtime) -> None:
    """A docker-archive of one image. `docker load`, `ctr images import`, kind, k3d and minikube read it."""
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": EPOCH,
            "config": runtime.document(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
            "history": [{"created": EPOCH} for _ in layers],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": [name], "Layers": [f"{layer.digest}/layer.tar" for layer in layers]}]
    ).encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(archive.name + ".partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as out:
        for layer in layers:
            with layer.tar.open("rb") as source:
                member = tarfile.TarInfo(f"{layer.digest}/layer.tar")
                member.size = layer.tar.stat().st_size
                out.addfile(member, source)
        for member_name, data in ((config_name, config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(member_name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    partial.replace(archive)


def _add_parents(out: tarfile.TarFile, name: str, made: set[str]) -> None:
    for parent in reversed(Path(name).parents[:-1]):
        if str(parent) not in made:
            made.add(str(parent))
            member = tarfile.TarInfo(str(parent))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            out.addfile(member)


def _add(out: tarfile.TarFile, name: str, path: Path, made: set[str]) -> None:
    if path.is_dir() and name in made:
        return
    made.add(name)
    member = tarfile.TarInfo(name)
    if path.is_symlink():
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        out.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        out.addfile(member)
    else:
        status = path.stat()
        member.size, member.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        with path.open("rb") as source:
            out.addfile(member, source)
