"""The service `targets`: tells Prometheus what to scrape, over its HTTP service discovery.

Only for builds of Prometheus that cannot ask Kubernetes themselves, such as Debian's: any other has
`kubernetes_sd_configs`, or the Prometheus Operator with the chart's monitors.

    GET /sidecars           each injected pod, in any namespace, with the sidecar's admin port
    GET /operator           the pods of Pulsecache itself
    GET /healthz
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

ADMIN_PORT = 15090
OPERATOR_PORT = 8080
SIDECARS = "pulsecache.dev/injected=true"
OPERATOR = "pulsecache.dev/metrics=operator"

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def target_groups(pods: Mapping[str, Any], *, port: int) -> list[dict[str, Any]]:
    """A PodList in Prometheus's words. Pods without an address, and those that have ended, are left out."""
    groups = []
    for pod in pods["items"]:
        address = pod["status"].get("podIP")
        if not address or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        host = f"[{address}]" if ":" in address else address
        labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
        component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        if component:
            labels["component"] = component
        groups.append({"targets": [f"{host}:{port}"], "labels": labels})
    return groups


class Targets:
    def __init__(self, api_url: str) -> None:
        self._pods_url = f"{api_url}/api/v1/pods"

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/sidecars", self.get_sidecars),
                web.get("/operator", self.get_operator),
                web.get("/healthz", self.get_healthz),
            ]
        )
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        authority = ssl.create_default_context(cafile=_ACCOUNT / "ca.crt")
        connector = aiohttp.TCPConnector(ssl=authority)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=5)) as self._session:
            yield

    async def get_sidecars(self, _: web.Request) -> web.Response:
        return await self._answer(SIDECARS, ADMIN_PORT)

    async def get_operator(self, _: web.Request) -> web.Response:
        return await self._answer(OPERATOR, OPERATOR_PORT)

    async def get_healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _answer(self, selector: str, port: int) -> web.Response:
        # The kubelet renews the token in its file, so it is read each time.
        token = (_ACCOUNT / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._session.get(
                self._pods_url, params={"labelSelector": selector}, headers=headers
            ) as response:
                response.raise_for_status()
                pods = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            # With an error Prometheus keeps the targets that it has.
            raise web.HTTPBadGateway(text=f"listing the pods {selector!r}: {error or type(error).__name__}\n") from None
        return web.json_response(target_groups(pods, port=port))


def application(*, api_url: str) -> web.Application:
    return Targets(api_url).app()
