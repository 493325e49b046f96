"""Helm as the tests of the chart use it: the real program, from PATH or from the cluster's cache of binaries.

A conftest.py says `from helm import helm as helm`. Where there is no helm it is built first, which takes minutes; when
that fails the tests fail.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from onenode.build import Binaries
from onenode.settings import cache_folder

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pulsecache"
KUBERNETES = "1.34.4"
NAMESPACE = "pulsecache-system"

Document = dict[str, Any]


class HelmError(Exception):
    """Helm said no; the message is what it printed."""


@dataclass(frozen=True)
class Helm:
    program: Path

    def run(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """What helm printed. Raises HelmError."""
        command = [str(self.program), *([f"--kubeconfig={kubeconfig}"] if kubeconfig else []), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise HelmError(done.stderr or done.stdout)
        return done.stdout

    def template(self, values: Mapping[str, Any] | None = None, *arguments: str, release: str = "pulsecache") -> str:
        """The chart's manifests as text. `values` go over the defaults; `arguments` are more flags."""
        return self.run(
            *("template", release, str(CHART), f"--namespace={NAMESPACE}", f"--kube-version={KUBERNETES}"),
            *("--values=-", *arguments),
            stdin=yaml.safe_dump(dict(values or {})),
        )

    def render(
        self, values: Mapping[str, Any] | None = None, *arguments: str, release: str = "pulsecache"
    ) -> list[Document]:
        """The chart's manifests as documents."""
        text = self.template(values, *arguments, release=release)
        return [document for document in yaml.safe_load_all(text) if document]


def find(documents: list[Document], kind: str, name: str) -> Document:
    """The one document of this kind and name."""
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)} of {[(d['kind'], d['metadata']['name']) for d in documents]}"
    return found[0]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The program, built when there is none."""
    if on_path := shutil.which("helm"):
        return Helm(Path(on_path))
    binaries = Binaries(cache_folder())
    if binaries.missing(["helm"]):
        # pytest-timeout's alarm is meant for tests: a compiler may take its minutes
        signal.setitimer(signal.ITIMER_REAL, 0)
        binaries.ensure(["helm"])
    return Helm(binaries.path("helm"))
