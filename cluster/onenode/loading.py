"""Getting image archives into the cluster's own containerd."""

from __future__ import annotations

import subprocess
from pathlib import Path

from onenode.console import ClusterError
from onenode.settings import Settings
from onenode.tools import find


def import_archive(settings: Settings, archive: Path, snapshotter: str) -> None:
    """Load a docker-archive. Raises ClusterError."""
    command = [
        *(str(find("ctr")), f"--address={settings.containerd_socket}", "--namespace=k8s.io"),
        *("images", "import", f"--snapshotter={snapshotter}", str(archive)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{archive} could not be loaded into the cluster: {done.stderr.strip()}")
