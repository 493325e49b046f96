"""Keeps the webhook's Secret and the caBundle of the webhook configuration good, and knows whether pods get sidecars.

Of the webhook configuration nothing is written but the caBundle, by a JSON patch that tests the webhook's name first:
the rest is Helm's. What the Secret should hold is decided in `certificates`.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from pulsecache_operator.certificates import Material, dns_names, now_utc, renew
from pulsecache_operator.controller.api import (
    SECRET,
    WEBHOOK_CONFIGURATION,
    Api,
    Document,
    NotFound,
)
from pulsecache_operator.placement import Object
from pulsecache_operator.settings import Settings

LOG = logging.getLogger(__name__)

WARM_S = 2.0
"""An injector that is Ready only now may get its first reviews a moment later."""


class WebhookKeeper:
    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        expires: Callable[[datetime], None],
        wall: Callable[[], datetime] = now_utc,
    ) -> None:
        self._api = api
        self._settings = settings
        self._expires = expires
        self._wall = wall
        self.problem: str | None = "the webhook has not been looked at yet"
        """Why the API server would not call the injector, or not trust it."""

    async def keep(self) -> None:
        """One look at all of it, which puts right what is not. Raises ApiError."""
        material = await self._renewed(*await self._read())
        self.problem = await self._trust(material.ca_bundle)

    async def look(self) -> None:
        """One look at the certificate, for a replica that does not write. Raises ApiError."""
        await self._read()

    async def _read(self) -> tuple[Document | None, Material]:
        try:
            secret = await self._api.get(SECRET, self._settings.tls_secret, self._settings.namespace)
        except NotFound:
            return None, Material()
        material = Material.of(_decoded(secret.get("data") or {}))
        if expiry := material.expiry():
            self._expires(expiry)
        return secret, material

    async def _renewed(self, secret: Document | None, before: Material) -> Material:
        name, namespace = self._settings.tls_secret, self._settings.namespace
        renewal = renew(before, dns_names(self._settings.webhook_service, namespace), self._wall())
        if not renewal.done:
            return before
        data = {key: base64.b64encode(value).decode() for key, value in renewal.material.data().items()}
        if secret is None:
            await self._api.create(
                SECRET,
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {
                        "name": name,
                        "namespace": namespace,
                        "labels": {"app.kubernetes.io/managed-by": "pulsecache"},
                    },
                    "data": data,
                },
            )
        else:
            # With the version that was read: of two that renew at once, one has to look again.
            version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
            await self._api.patch(SECRET, {"metadata": version, "data": data}, name, namespace)
        if expiry := renewal.material.expiry():
            self._expires(expiry)
        for done in renewal.done:
            LOG.info("certificates in Secret %s/%s: %s", namespace, name, done)
        return renewal.material

    async def _trust(self, ca_bundle: bytes) -> str | None:
        name = self._settings.webhook_configuration
        try:
            configuration = await self._api.get(WEBHOOK_CONFIGURATION, name)
        except NotFound:
            return f"there is no MutatingWebhookConfiguration {name}"
        webhooks = configuration.get("webhooks") or []
        if not webhooks:
            return f"the MutatingWebhookConfiguration {name} has no webhooks"
        wanted = base64.b64encode(ca_bundle).decode()
        patch: list[Document] = []
        for index, webhook in enumerate(webhooks):
            if (webhook.get("clientConfig") or {}).get("caBundle") != wanted:
                path = f"/webhooks/{index}"
                patch.append({"op": "test", "path": f"{path}/name", "value": webhook["name"]})
                patch.append({"op": "add", "path": f"{path}/clientConfig/caBundle", "value": wanted})
        if patch:
            await self._api.patch(WEBHOOK_CONFIGURATION, patch, name)
            LOG.info("the caBundle of MutatingWebhookConfiguration %s was brought up to date", name)
        return None


class InjectionGate:
    """Whether a pod that is created now gets its sidecar: nobody is rolled into nothing."""

    def __init__(
        self,
        webhook: WebhookKeeper,
        slices: Iterable[Object],
        *,
        service: str,
        clock: Callable[[], float],
    ) -> None:
        self._webhook = webhook
        self._slices = slices
        self._service = service
        self._clock = clock
        self._open_since: float | None = None

    def problem(self) -> str | None:
        problem = self._webhook.problem
        if problem is None and not any(_ready_endpoints(found) for found in self._slices):
            problem = f"no injector is Ready (Service {self._service} has no ready endpoints)"
        if problem is not None:
            self._open_since = None
            return problem
        now = self._clock()
        if self._open_since is None:
            self._open_since = now
        if now - self._open_since < WARM_S:
            return "an injector has become Ready just now"
        return None


def _ready_endpoints(found: Object) -> bool:
    # An endpoint that does not say whether it is ready counts as ready: so the API has it.
    return any((e.get("conditions") or {}).get("ready") is not False for e in found.get("endpoints") or ())


def _decoded(data: Document) -> dict[str, bytes]:
    found = {}
    for key, value in data.items():
        try:
            found[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            continue
    return found
