"""Python packages as a folder for an image: `uv` chooses wheels for the image's Python, whatever Python runs here.

pip would do that only under the very same Python: run by 3.11.7, `pip install --target` leaves out what 3.11.2 needs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from onenode.command import output
from onenode.console import Progress
from onenode.debian import PYTHON_VERSION

REPOSITORY = Path(__file__).resolve().parents[2]


def uv(cache: Path) -> str:
    """uv from PATH, from the virtual environment of the repository, or from one of our own in the cache."""
    own = cache / "tools" / "uv"
    for candidate in (shutil.which("uv"), REPOSITORY / ".venv" / "bin" / "uv", own / "bin" / "uv"):
        if candidate and Path(candidate).exists():
            return str(candidate)
    with Progress("installing uv into the cache folder"):
        _run([sys.executable, "-m", "venv", "--clear", str(own)])
        _run([str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
    return str(own / "bin" / "uv")


def install(target: Path, cache: Path, *, lock: Path | None = None, project: Path | None = None) -> None:
    """Install the packages of a lock file (hashes are checked), or a project without what it needs, into `target`."""
    command = [uv(cache), "pip", "install", "--quiet", "--target", str(target), "--python-version", PYTHON_VERSION]
    command += ["--python-platform", f"{platform.machine()}-manylinux_2_36", "--link-mode", "copy"]
    if lock is not None:
        command += ["--require-hashes", "--only-binary", ":all:", "--requirements", str(lock)]
    if project is not None:
        command += ["--no-deps", "--reinstall", str(project)]
    _run(command)
    # its scripts name the Python of this machine: images start modules instead
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)
    # notes on where and when: the same content has to give the same layer
    for note in ("uv_build.json", "uv_cache.json", "direct_url.json"):
        for path in target.glob(f"*.dist-info/{note}"):
            path.unlink()


LOCKS = {
    "sidecar": ["pyproject.toml", "--extra", "sidecar"],
    "operator": ["pyproject.toml", "--extra", "operator"],
    "shop": ["examples/shop/requirements.txt"],
    "dev": ["pyproject.toml", "--extra", "dev"],
}


def write_locks(cache: Path, *, upgrade: bool) -> None:
    """Write requirements/*.lock: versions and hashes for every platform and Python from 3.11 on.

    Versions that are in a file stay unless `upgrade` is asked for or the requirements no longer allow them.
    """
    for name, sources in LOCKS.items():
        command = [uv(cache), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--custom-compile-command", "make lock", "--output-file", f"requirements/{name}.lock"]
        _run([*command, *(["--upgrade"] if upgrade else []), *sources], cwd=REPOSITORY)


def compile_bytecode(folder: Path, path_in_image: str) -> None:
    """Compile ahead: a read-only root file system could not keep what each start would compile anew."""
    if sys.version_info[:2] != tuple(int(part) for part in PYTHON_VERSION.split(".")[:2]):
        return  # another Python's bytecode is of no use; the image starts more slowly without
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # some packages carry templates that are no Python yet: what does not compile is not an error
    subprocess.run(
        [*command, "-s", str(folder), "-p", path_in_image, str(folder)], stdout=subprocess.DEVNULL, check=False
    )


def _run(command: list[str], cwd: Path | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    output(command, environment=environment, cwd=cwd)
