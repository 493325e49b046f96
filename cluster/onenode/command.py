"""Run another program and take its output: the kernel ends it when this process is killed, so none is left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from onenode.console import ClusterError
from onenode.tools import find


def with_us(argv: Sequence[str | Path]) -> list[str]:
    """The command line of a program that is killed when the calling *thread* ends, however that ends."""
    setpriv = find("setpriv")
    prefix = [str(setpriv), "--pdeathsig", "KILL"] if setpriv else []
    return [*prefix, *(str(argument) for argument in argv)]


def without_proxies() -> dict[str, str]:
    """The environment, without the proxies that are not meant for addresses of this machine."""
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def output(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """What the program writes to standard output. Raises ClusterError with its words when it fails."""
    shown = " ".join(str(argument) for argument in argv)
    try:
        done = subprocess.run(
            with_us(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{shown}: no answer within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise ClusterError(f"{shown}: {words[-3000:]}")
    return done.stdout
