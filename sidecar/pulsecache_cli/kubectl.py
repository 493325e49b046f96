"""The cluster through kubectl, which knows contexts, credentials and proxies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any

from pulsecache_cli.errors import CommandFailed

ADMIN_PORT = 15090
REQUEST_TIMEOUT_S = 15
FORWARD_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Kubectl:
    context: str | None = None

    def get(self, *arguments: str) -> Any:
        """The parsed JSON of `kubectl get`. Raises CommandFailed with what kubectl said."""
        command = self._command("get", *arguments, "--output=json", f"--request-timeout={REQUEST_TIMEOUT_S}s")
        # the arguments are a list: no shell looks at them
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise CommandFailed(_advised(done.stderr.strip() or f"kubectl ended with {done.returncode}"))
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise CommandFailed(f"kubectl get answered no JSON: {error}") from error

    @contextmanager
    def forwarded(self, namespace: str, pod: str) -> Iterator[str]:
        """The URL of a pod's admin listener. What comes this way comes from loopback inside the pod."""
        command = self._command(
            "port-forward", f"--namespace={namespace}", "--address=127.0.0.1", f"pod/{pod}", f":{ADMIN_PORT}"
        )
        process = subprocess.Popen(  # noqa: S603 - as above
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process:
            # reading ends with the process, so ending it is the deadline of the reading
            deadline = Timer(FORWARD_TIMEOUT_S, process.kill)
            deadline.start()
            try:
                port = _forwarded_port(process)
                deadline.cancel()
                yield f"http://127.0.0.1:{port}"
            finally:
                deadline.cancel()
                process.terminate()

    def _command(self, *arguments: str) -> list[str]:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise CommandFailed("kubectl is not on PATH; this command reaches the cluster through it")
        return [kubectl, *([f"--context={self.context}"] if self.context else []), *arguments]


def _forwarded_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if found := re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    said = process.stderr.read().strip()
    raise CommandFailed(f"kubectl port-forward did not reach the pod: {said or 'it took too long'}")


def _advised(said: str) -> str:
    if "the server doesn't have a resource type" in said:
        return f"{said}. Pulsecache is not installed in this cluster: its CRD is missing"
    return said
