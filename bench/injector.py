"""How long the webhook takes for a review, and how many it answers a second on one core.

    python bench/injector.py [--policies 100] [--seconds 5]

The server is the real one (TLS, 100 policies and Services in one namespace), in a process of its own on the first core;
the client shares the other cores with whatever else runs. Latency is seen by the client; reviews per CPU second are
those of the server's process, which other load on the machine does not change much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from pods import CONFIG, client_side, pod, server_side, service
from pulsecache_operator.injector.metrics import Metrics
from pulsecache_operator.injector.server import InjectorServer
from pulsecache_operator.injector.tls import Certificate
from webhook import NAMES, Known, certificate, review, secret

EXTRA_ENV = 30
EXTRA_FIELDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policies", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.policies))
    else:
        measure(arguments.policies, arguments.seconds)


# --- the server ---------------------------------------------------------------------------------------------------


async def serve(policies: int) -> None:
    """Tells its port and CA, then its use of CPU for each line that it is sent."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    material = certificate()
    loaded = Certificate()
    loaded.put(secret(material))
    known = Known(
        [
            *(
                server_side(f"policy-{i}", f"service-{i}", created=f"2026-01-01T00:00:{i % 60:02}Z")
                for i in range(policies - 2)
            ),
            server_side("products"),
            client_side("catalog"),
        ],
        [*(service(f"service-{i}", selector={"app": f"app-{i}"}) for i in range(policies - 2)), service()],
    )
    server = InjectorServer(
        "127.0.0.1",
        0,
        context=loaded.context,
        known=known,
        config=CONFIG,
        own_namespace="pulsecache-system",
        metrics=Metrics(),
        report=lambda news: None,
    )
    await server.start()
    print(json.dumps({"port": server.port, "ca": material.ca_bundle.decode()}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"cpu_s": time.process_time()}), flush=True)
    await server.stop()


# --- the client ---------------------------------------------------------------------------------------------------


def reviews() -> dict[str, dict[str, Any]]:
    selected = pod()
    app = selected["spec"]["containers"][0]
    app["env"] = [{"name": f"VARIABLE_{i}", "value": f"value of it {i}"} for i in range(EXTRA_ENV)]
    fields = {f"f:field-{i}": {"f:inner": {}} for i in range(EXTRA_FIELDS)}
    selected["metadata"]["managedFields"] = [{"manager": "kube-controller-manager", "fieldsV1": fields}]
    other = json.loads(json.dumps(selected))
    other["metadata"]["labels"] = {"app": "nobody's"}
    return {"injected": review(selected), "skipped": review(other)}


def measure(policies: int, seconds: float) -> None:
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--policies", str(policies)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def tell() -> dict[str, Any]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("\n")
        server.stdin.flush()
        told: dict[str, Any] = json.loads(server.stdout.readline())
        return told

    try:
        told = json.loads(server.stdout.readline())
        context = ssl.create_default_context(cadata=told["ca"])
        print(f"{policies} policies and Services in the namespace; the server has one core")
        print(f"{'review':>9} {'bytes':>6} {'open':>5} {'reviews/s':>10} {'p50 ms':>7} {'p99 ms':>7} {'per CPU s':>10}")
        for kind, document in reviews().items():
            for connections in (1, 8):
                body = json.dumps(document).encode()
                asyncio.run(load(told["port"], context, body, connections, min(1.0, seconds)))
                before = tell()
                started = time.perf_counter()
                latencies = sorted(asyncio.run(load(told["port"], context, body, connections, seconds)))
                elapsed, after = time.perf_counter() - started, tell()
                cpu_s = after["cpu_s"] - before["cpu_s"]
                p50, p99 = (latencies[int(len(latencies) * q)] * 1000 for q in (0.5, 0.99))
                rate = len(latencies) / elapsed
                print(
                    f"{kind:>9} {len(body):>6} {connections:>5} {rate:>10.0f} {p50:>7.2f} {p99:>7.2f}"
                    f" {len(latencies) / cpu_s:>10.0f}"
                )
    finally:
        server.stdin.close()
        server.wait(20)


async def load(port: int, context: ssl.SSLContext, body: bytes, connections: int, seconds: float) -> list[float]:
    """Latencies in seconds, one request after the other on each connection."""
    head = f"POST /inject?timeout=3s HTTP/1.1\r\nHost: webhook\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    end = time.perf_counter() + seconds

    async def one() -> list[float]:
        found = []
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAMES[0])
        while (started := time.perf_counter()) < end:
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            found.append(time.perf_counter() - started)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()
        return found

    return [latency for found in await asyncio.gather(*(one() for _ in range(connections))) for latency in found]


if __name__ == "__main__":
    main()
