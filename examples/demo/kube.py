"""A cluster as the demo and the end-to-end tests see it: kubectl and helm, and waiting with a deadline."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class CommandError(Exception):
    """A command failed; the message has the command and what it printed."""


class TimedOut(Exception):
    """What was waited for did not come; the message has the last thing that was seen."""


def wait_for(what: str, probe: Callable[[], T | None], *, timeout_s: float, every_s: float = 0.5) -> T:
    """Polls until `probe` gives something true. Errors of commands while waiting count as not yet.

    Raises TimedOut with the last error.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    last: Exception | None = None
    while True:
        try:
            if found := probe():
                return found
            last = None
        except (CommandError, KeyError, ValueError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimedOut(f"waited {timeout_s:.0f} s for {what}" + (f"; last: {last}" if last else ""))
        pause.wait(every_s)


@dataclass
class Kube:
    """One cluster: by kube context, or the one of `cluster/` with its own kubeconfig and tools."""

    context: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @classmethod
    def of_this_machine(cls) -> Kube:
        """The cluster that `make cluster-up` starts."""
        printed = run([*CLUSTER, "env"])
        environment = dict(os.environ)
        for line in printed.splitlines():
            words = shlex.split(line)
            if len(words) == 2 and words[0] == "export":
                name, _, value = words[1].partition("=")
                environment[name] = os.path.expandvars(value)
        return cls(environment=environment)

    def tool(self, name: str) -> str:
        found = shutil.which(name, path=self.environment.get("PATH"))
        if found is None:
            raise CommandError(f"{name} is not on PATH: install it, or let `make cluster-build` build it")
        return found

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        context = ["--context", self.context] if self.context else []
        return run([self.tool("kubectl"), *context, *arguments], stdin=stdin, env=self.environment, timeout_s=timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 300) -> str:
        context = ["--kube-context", self.context] if self.context else []
        return run([self.tool("helm"), *context, *arguments], env=self.environment, timeout_s=timeout_s)

    def apply(self, *documents: Mapping[str, Any] | Path | str) -> None:
        """Applies files, YAML text, or documents, in order."""
        for document in documents:
            if isinstance(document, Path):
                self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(document))
            else:
                text = document if isinstance(document, str) else json.dumps(document)
                self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def delete(self, *arguments: str) -> None:
        self.kubectl("delete", "--ignore-not-found", "--wait=false", *arguments)

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, *_in(namespace), "-o", "json"))
        return found

    def items(self, kind: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        labels = ["-l", selector] if selector else []
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *_in(namespace), *labels, "-o", "json"))[
            "items"
        ]
        return found

    def patch(self, kind: str, name: str, namespace: str | None, patch: Mapping[str, Any]) -> None:
        self.kubectl("patch", kind, name, *_in(namespace), "--type=merge", "-p", json.dumps(patch))

    def scale(self, kind: str, name: str, namespace: str, replicas: int) -> None:
        self.kubectl("scale", kind, name, *_in(namespace), f"--replicas={replicas}")

    def ready_pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.items("pods", namespace, selector)
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        ]

    def rolled_out(self, kind: str, name: str, namespace: str, timeout_s: float = 180) -> None:
        self.kubectl(
            "rollout",
            "status",
            f"{kind}/{name}",
            *_in(namespace),
            f"--timeout={timeout_s:.0f}s",
            timeout_s=timeout_s + 10,
        )

    def exec(
        self,
        namespace: str,
        pod: str,
        *command: str,
        container: str | None = None,
        stdin: str | None = None,
        timeout_s: float = 60,
    ) -> str:
        which = ["-c", container] if container else []
        return self.kubectl(
            "exec",
            *(["-i"] if stdin is not None else []),
            *_in(namespace),
            pod,
            *which,
            "--",
            *command,
            stdin=stdin,
            timeout_s=timeout_s,
        )

    def start_exec(self, namespace: str, pod: str, *command: str) -> subprocess.Popen[str]:
        """A command in a pod that goes on while other things happen; read it by `communicate`."""
        context = ["--context", self.context] if self.context else []
        return subprocess.Popen(
            [self.tool("kubectl"), *context, "exec", *_in(namespace), pod, "--", *command],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )


CLUSTER = ("python3", str(ROOT / "cluster" / "cluster.py"))


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def run(
    command: Sequence[str], *, stdin: str | None = None, env: Mapping[str, str] | None = None, timeout_s: float = 60
) -> str:
    """Runs a command to its end and returns what it printed. Raises CommandError."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env=env,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            **({} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{shlex.join(command)} took longer than {timeout_s:.0f} s") from error
    except OSError as error:
        raise CommandError(f"{shlex.join(command)} cannot be started: {error}") from error
    if done.returncode != 0:
        raise CommandError(
            f"{shlex.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}"
        )
    return done.stdout
