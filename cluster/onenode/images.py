"""The images of Pulsecache and its example, by name, as docker-archives in the cache folder.

With a container engine the Dockerfiles are built, as users do it. Without one the same content is put together from a
Debian root file system, wheels and the code, in layers that change as rarely as what is in them. An archive's name
carries the hash of everything that it was made from: an image that is there is never built again.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onenode import debian, wheels
from onenode.archive import Layer, Runtime, write_archive, write_layer
from onenode.command import output
from onenode.console import ClusterError, Progress, say
from onenode.locking import exclusive

REPOSITORY = wheels.REPOSITORY
SITE = "/opt/pulsecache"
RECIPE = 1
"""raise it when this module makes different content of the same input"""
LOCK = ".lock"
KEPT = 4
"""archives kept of each image"""

PYTHON_ENVIRONMENT = {"PYTHONPATH": SITE, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
DISTRIBUTION = ("pyproject.toml", "README.md", "LICENSE", "operator", "sidecar")
"""what a wheel of the repository is made from"""


@dataclass(frozen=True)
class Image:
    """One image. `sources` are paths of the repository, `lock` and `dockerfile` too."""

    dockerfile: str
    runtime: Runtime
    lock: str | None = None
    sources: tuple[str, ...] = ()
    module: str | None = None
    """the distribution's module that /usr/local/bin/<entry point> runs"""
    target: str | None = None
    """stage of the Dockerfile"""


def _program(name: str, dockerfile: str) -> Image:
    return Image(
        dockerfile=dockerfile,
        runtime=Runtime([f"pulsecache-{name}"], environment=PYTHON_ENVIRONMENT),
        lock=f"requirements/{name}.lock",
        sources=DISTRIBUTION,
        module=f"pulsecache_{name}",
    )


def _server(name: str, *entrypoint: str, environment: dict[str, str] | None = None) -> Image:
    runtime = Runtime(entrypoint, environment=environment)
    return Image("images/Dockerfile", runtime, target=name)


IMAGES = {
    "sidecar": _program("sidecar", "sidecar/Dockerfile"),
    "operator": _program("operator", "operator/Dockerfile"),
    "shop": Image(
        "examples/shop/Dockerfile",
        Runtime(["python3", "-m", "shop"], environment=PYTHON_ENVIRONMENT),
        lock="requirements/shop.lock",
        sources=("examples/shop/shop",),
    ),
    "redis": _server("redis", "redis-server"),
    "postgres": _server(
        "postgres", "postgres", environment={"PATH": "/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin"}
    ),
    "prometheus": _server("prometheus", "prometheus"),
}


def reference(name: str) -> str:
    return f"pulsecache/{name}:dev"


def build(names: Iterable[str], cache: Path) -> dict[str, Path]:
    """The archives of the images, built where needed. Raises ClusterError."""
    wanted = list(names)
    if unknown := [name for name in wanted if name not in IMAGES]:
        raise ClusterError(f"unknown image {', '.join(unknown)}; there are {', '.join(IMAGES)}")
    folder = cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    engine = has_engine()
    with exclusive(folder / LOCK, "another build of images"):
        _remove_unfinished(folder)
        return {name: _ensure(name, folder, cache, engine=engine) for name in wanted}


def _remove_unfinished(folder: Path) -> None:
    """What a killed build left; the caller holds the lock, so nobody is at it."""
    for pattern in ("*.partial", "partial-*", "code-*", "packages-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def has_engine() -> bool:
    """Whether `docker` is there and an engine answers it: the command alone builds nothing."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        output([docker, "info"], timeout_s=20)
    except ClusterError:
        return False
    return True


def _ensure(name: str, folder: Path, cache: Path, *, engine: bool) -> Path:
    image = IMAGES[name]
    inputs = [path for path in (image.lock, *image.sources, *([image.dockerfile] if engine else [])) if path]
    digest = hashlib.sha256(f"{RECIPE} {engine} {image} {debian.PYTHON.digest()} {debian.SERVERS.digest()}".encode())
    digest.update(tree_digest(REPOSITORY, inputs).encode())
    archive = folder / f"{name}-{digest.hexdigest()[:16]}.tar"
    if archive.exists():
        archive.touch()
        return archive
    base = None if engine else debian.layer(debian.PYTHON if image.lock else debian.SERVERS, folder)
    with Progress(f"image {reference(name)}"):
        if base is None:
            _build_with_engine(name, image, archive)
        else:
            write_archive(archive, reference(name), [base, *_layers(name, image, folder, cache)], image.runtime)
    for old in sorted(folder.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()
    return archive


def tree_digest(root: Path, paths: Sequence[str]) -> str:
    """A hash of the files below `paths`, names and content; what Python writes beside them does not count."""
    digest = hashlib.sha256()
    for top in paths:
        start = root / top
        if not start.exists():
            raise ClusterError(f"{start} is missing: the image cannot be built without it")
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".egg-info":
                digest.update(f"{path.relative_to(root)}\0{path.stat().st_mode & 0o100}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _layers(name: str, image: Image, folder: Path, cache: Path) -> list[Layer]:
    """What is laid over the root file system."""
    if image.lock is None:
        return []
    layers = [_packages(name, image.lock, folder, cache)]
    with tempfile.TemporaryDirectory(dir=folder, prefix="code-") as scratch:
        site = Path(scratch) / "site"
        files = {SITE: site}
        if image.module is not None:
            wheels.install(site, cache, project=REPOSITORY)
            program = Path(scratch) / "program"
            program.write_text(f'#!/bin/sh\nPYTHONPATH={SITE} exec python3 -m {image.module} "$@"\n')
            program.chmod(0o755)
            files[f"/usr/local/bin/{image.runtime.entrypoint[0]}"] = program
        else:
            for source in image.sources:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / source, site / Path(source).name, ignore=ignored)
        wheels.compile_bytecode(site, SITE)
        code = folder / f"layer-{name}-code.tar"
        write_layer(code, files)
        layers.append(Layer.of(code))
    return layers


def _packages(name: str, lock: str, folder: Path, cache: Path) -> Layer:
    """The layer of the packages of a lock file."""
    key = hashlib.sha256(f"{RECIPE} {debian.PYTHON_VERSION} {(REPOSITORY / lock).read_text()}".encode())
    tar = folder / f"layer-{name}-packages-{key.hexdigest()[:16]}.tar"
    if not tar.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix="packages-") as scratch:
            site = Path(scratch) / "site"
            wheels.install(site, cache, lock=REPOSITORY / lock)
            wheels.compile_bytecode(site, SITE)
            write_layer(tar, {SITE: site})
    return Layer.of(tar)


def _build_with_engine(name: str, image: Image, archive: Path) -> None:
    target = ["--target", image.target] if image.target else []
    partial = archive.with_suffix(".partial")
    try:
        output(["docker", "build", "--tag", reference(name), "--file", image.dockerfile, *target, "."], cwd=REPOSITORY)
        output(["docker", "save", "--output", partial, reference(name)])
    except ClusterError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(archive)


def copy_to(archives: dict[str, Path], out: Path) -> dict[str, Path]:
    """Copies under plain names: `out/NAME.tar`."""
    out.mkdir(parents=True, exist_ok=True)
    copies = {}
    for name, archive in archives.items():
        copies[name] = out / f"{name}.tar"
        copies[name].unlink(missing_ok=True)
        try:
            copies[name].hardlink_to(archive)
        except OSError:  # another file system
            shutil.copyfile(archive, copies[name])
        say(f"{reference(name)} is in {copies[name]}")
    return copies
