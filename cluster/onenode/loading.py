"""Getting image archives into a cluster: our own containerd, kind, k3d or minikube. No registry is needed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onenode.command import output
from onenode.console import ClusterError
from onenode.containerd_import import import_archive
from onenode.settings import Settings, settings
from onenode.tools import find

# contexts whose node takes the images of the machine's container engine
SHARED_ENGINES = ("docker-desktop", "rancher-desktop", "orbstack")


class Target(Protocol):
    """Where images go."""

    def load(self, reference: str, archive: Path) -> None:
        """Make the image of the archive known as `reference`. Raises ClusterError."""


@dataclass(frozen=True)
class OneNode:
    """The containerd of the one-node cluster."""

    settings: Settings

    def load(self, reference: str, archive: Path) -> None:
        if not self.settings.containerd_socket.exists():
            raise ClusterError("no cluster runs to load images into: start it by `make cluster-up`")
        ctr = [str(find("ctr")), f"--address={self.settings.containerd_socket}", "--namespace=k8s.io"]
        snapshotter = (self.settings.directory / "snapshotter").read_text()
        import_archive(ctr, archive, full_reference(reference), snapshotter)

    def __str__(self) -> str:
        return f"the cluster {self.settings.name}"


@dataclass(frozen=True)
class Tool:
    """A cluster whose own tool loads images."""

    context: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def load(self, reference: str, archive: Path) -> None:
        if shutil.which(self.before[0]) is None:
            raise ClusterError(f"context {self.context} is one of {self.before[0]}, which is not on PATH")
        output([*self.before, str(archive), *self.after])

    def __str__(self) -> str:
        return self.context


@dataclass(frozen=True)
class Engine:
    """A cluster that shares its images with the machine's container engine."""

    context: str

    def load(self, reference: str, archive: Path) -> None:
        output(["docker", "load", "--input", str(archive)])

    def __str__(self) -> str:
        return self.context


def target(context: str | None, of: Settings | None = None) -> Target:
    """Where images for a kubectl context go; without one to the one-node cluster. Raises ClusterError."""
    if context is None:
        return OneNode(of or settings())
    if context.startswith("kind-"):
        return Tool(context, ("kind", "load", "image-archive"), ("--name", context.removeprefix("kind-")))
    if context.startswith("k3d-"):
        return Tool(context, ("k3d", "image", "import"), ("--cluster", context.removeprefix("k3d-")))
    if context in SHARED_ENGINES:
        return Engine(context)
    if context == "minikube" or context in _minikube_profiles():
        return Tool(context, ("minikube", "image", "load"), ("--profile", context))
    raise ClusterError(
        f"context {context} is none of kind, k3d or minikube: push the images to a registry that its nodes can reach, "
        "and name that registry by the chart's value image.registry"
    )


def full_reference(reference: str) -> str:
    """A name as containerd keeps it: with its registry, and a tag."""
    head, slash, _ = reference.partition("/")
    named = slash and ("." in head or ":" in head or head == "localhost")
    full = reference if named else f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"
    return full if ":" in full.rpartition("/")[2] else f"{full}:latest"


def _minikube_profiles() -> list[str]:
    minikube = shutil.which("minikube")
    if minikube is None:
        return []
    try:
        profiles = json.loads(output([minikube, "profile", "list", "--output", "json"], timeout_s=30))
        return [profile["Name"] for profile in profiles["valid"]]
    except (
        ClusterError,
        ValueError,
        KeyError,
    ):  # it has none, or cannot say: no context is its own
        return []
