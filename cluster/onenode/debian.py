"""Root file systems of Debian packages, the base of images where no container engine is: made once, kept in the cache.

They hold what the Dockerfiles get from their base images. Delete the cache folder to get newer packages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from onenode.archive import Layer
from onenode.command import output
from onenode.console import ClusterError, Progress
from onenode.tools import find, require

SUITE = "bookworm"
PYTHON_VERSION = "3.11.2"
"""the suite's python3: wheels are chosen for it, whatever Python runs this"""

UNUSED = tuple(f"/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info", "lintian", "i18n", "javascript"))
NONROOT = "nonroot:x:65532:65532::/tmp:/usr/sbin/nologin"


@dataclass(frozen=True)
class Root:
    """A root file system: packages, and files of theirs that are never needed."""

    name: str
    packages: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    def command(self) -> list[str]:
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(self.packages)}"]
        command += ["--aptopt=Acquire::Languages none", "--dpkgopt=force-confold"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in (*UNUSED, *self.excluded)]
        # a database of the package's own making would only be in the way
        postgres = 'mkdir -p "$1/etc/postgresql-common" && echo create_main_cluster=false >"$1/etc/postgresql-common/'
        command += [f'--essential-hook={postgres}createcluster.conf"'] if "postgresql" in self.packages else []
        # some programs want a name for the user that they run as
        command += [f"--customize-hook=echo '{NONROOT}' >>\"$1/etc/passwd\""]
        return [*command, SUITE]

    def digest(self) -> str:
        return hashlib.sha256("\0".join(self.command()).encode()).hexdigest()[:16]


PYTHON = Root("python", ("python3", "ca-certificates"))
SERVERS = Root(
    "servers",
    ("redis-server", "postgresql", "prometheus"),
    # PostgreSQL compiles queries with LLVM only if it is there; that is a third of the whole
    (
        "/usr/lib/*/libLLVM*",
        "/usr/lib/*/libz3*",
        "/usr/lib/postgresql/*/lib/llvmjit*",
        "/usr/lib/postgresql/*/lib/bitcode/*",
        "/usr/bin/promtool",
    ),
)


def layer(root: Root, cache: Path) -> Layer:
    """The root file system as a layer. Raises ClusterError with the words of mmdebstrap."""
    tar = cache / f"debian-{root.name}-{root.digest()}.tar"
    if not tar.exists():
        require(["mmdebstrap"])
        tar.parent.mkdir(parents=True, exist_ok=True)
        partial = tar.with_name(f"partial-{tar.name}")
        try:
            with Progress(f"fetching Debian packages {', '.join(root.packages)}"):
                output([str(find("mmdebstrap")), *root.command()[1:], partial])
        except ClusterError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(tar)
    return Layer.of(tar)
