"""The cluster's binaries, built from Go modules into a cache folder that any number of clusters share.

A module's folder in the cache carries the hash of what it was built from, so a change of go.mod builds anew and an
unchanged one costs nothing. Only what is asked for is built: an API server for tests needs no kubelet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onenode.command import with_us
from onenode.console import ClusterError, Progress
from onenode.locking import exclusive
from onenode.tools import require

SOURCES = Path(__file__).resolve().parent.parent / "go"


@dataclass(frozen=True)
class Module:
    """One folder of `cluster/go`: a go.mod and the commands that are built from it."""

    name: str
    packages: dict[str, str]
    """binary -> package"""

    @property
    def source(self) -> Path:
        return SOURCES / self.name

    def digest(self) -> str:
        digest = hashlib.sha256(platform.machine().encode())
        for path in sorted([*self.source.glob("go.*"), *self.source.glob("*.go")]):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:16]

    def link_flags(self) -> str:
        flags = "-s -w"
        if version := self.version_of("k8s.io/kubernetes"):
            major, minor = version.removeprefix("v").split(".")[:2]
            for variable, value in (("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)):
                flags += f" -X k8s.io/component-base/version.{variable}={value}"
        return flags

    def version_of(self, dependency: str) -> str | None:
        """The version of a module that go.mod requires."""
        match = re.search(
            rf"^\s*(?:require )?{re.escape(dependency)} (v\S+)", (self.source / "go.mod").read_text(), re.M
        )
        return match[1] if match else None


MODULES = (
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kubeadm",
                "kubectl",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        },
    ),
    Module("pause", {"pause": "."}),
    Module("coredns", {"coredns": "."}),
    Module("helm", {"helm": "helm.sh/helm/v3/cmd/helm"}),
)
ALL = tuple(binary for module in MODULES for binary in module.packages)
API = ("etcd", "kube-apiserver", "kubeadm", "kubectl")
"""What an API server without a node needs."""


class Binaries:
    """The cache of built binaries."""

    def __init__(self, cache: Path) -> None:
        self._root = cache / "cluster" / "bin"

    def folder(self, module: Module) -> Path:
        return self._root / f"{module.name}-{module.digest()}"

    def path(self, binary: str) -> Path:
        """Where a binary is, once `ensure` has returned."""
        return self.folder(_module_of(binary)) / binary

    def missing(self, binaries: Iterable[str] = ALL) -> list[str]:
        return [binary for binary in binaries if not self.path(binary).exists()]

    def ensure(self, binaries: Iterable[str] = ALL) -> None:
        """Build what is not there yet. Two callers at once build once. Raises ClusterError."""
        wanted = list(binaries)
        for module in MODULES:
            mine = [binary for binary in module.packages if binary in wanted]
            if not self.missing(mine):
                continue
            # one build at a time on the whole machine: linking kube-apiserver takes gigabytes
            with exclusive(self._root / ".lock", "another build"):
                # whoever held the lock before may have built them
                missing = self.missing(mine)
                for unfinished in self._root.glob(".build-*"):  # of a build that was killed
                    shutil.rmtree(unfinished)
                if missing:
                    self._build(module, missing)

    def kubernetes_version(self) -> str:
        version = _module_of("kubelet").version_of("k8s.io/kubernetes")
        assert version is not None
        return version

    def search_path(self) -> str:
        return os.pathsep.join(str(self.folder(module)) for module in MODULES)

    def _build(self, module: Module, binaries: list[str]) -> None:
        require(["go"])
        folder = self.folder(module)
        folder.mkdir(parents=True, exist_ok=True)
        title = f"building {', '.join(binaries)}"
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".build-") as out, Progress(title) as progress:
            packages = [module.packages[binary] for binary in binaries]
            _go_build(module, packages, Path(out), progress)
            for binary, package in zip(binaries, packages, strict=True):
                (Path(out) / _output_name(module, package)).replace(folder / binary)


def _module_of(binary: str) -> Module:
    return next(module for module in MODULES if binary in module.packages)


def _output_name(module: Module, package: str) -> str:
    """The file that `go build -o FOLDER/` writes: the last element of the import path that is no major version."""
    elements = [module.name] if package == "." else package.split("/")
    return elements[-2] if re.fullmatch(r"v\d+", elements[-1]) else elements[-1]


def _go_build(module: Module, packages: list[str], out: Path, progress: Progress) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    command = ["go", "build", "-v", "-buildvcs=false", "-trimpath", "-ldflags", module.link_flags(), "-o", f"{out}/"]
    process = subprocess.Popen(
        with_us([*command, *packages]), cwd=module.source, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    compiled = downloaded = 0
    words: list[str] = []
    with process.stderr as lines:
        for line in lines:
            if line.startswith("go: downloading"):
                downloaded += 1
                progress.update(f"{downloaded} modules downloaded")
            elif re.fullmatch(r"[\w.~/-]+\n", line):
                compiled += 1
                progress.update(f"{compiled} packages compiled ({line.strip()})")
            else:
                words.append(line)
    if process.wait() != 0:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        raise ClusterError(f"go build of {', '.join(packages)} in {module.source} failed:\n{''.join(words[-40:])}")
