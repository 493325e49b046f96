"""How news of the cluster come in: by watches, and of policies by Kopf and our own LISTs. Nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from kubernetes.aio.client import ApiClient

from pulsecache_operator.controller.api import (
    CACHE_POLICY,
    ENDPOINT_SLICE,
    POD,
    WEBHOOK_CONFIGURATION,
    WORKLOADS,
    Api,
    ApiError,
    Document,
    Kind,
)
from pulsecache_operator.controller.cluster import Cluster, Objects, Policies
from pulsecache_operator.controller.facts import Keeper
from pulsecache_operator.controller.preflight import missing, needs
from pulsecache_operator.controller.watching import PolicyWatch
from pulsecache_operator.injector.view import NAMESPACES, SERVICES, keep_namespace, keep_service
from pulsecache_operator.settings import Settings
from pulsecache_operator.watch import Resource, Watch

LOG = logging.getLogger(__name__)

RELIST_S = 60.0
RETRY_S = 5.0
SAME_LIST_S = 0.5
"""Kopf tells of the objects of one LIST one by one."""


def watches(
    client: ApiClient, settings: Settings, cluster: Cluster, slices: Objects, webhook: Callable[[], None]
) -> tuple[Watch, ...]:
    """All but that of policies. `slices`: of the injector's Service; `webhook`: its configuration has changed."""
    keeper = Keeper()
    configuration = Objects(lambda old, new: webhook())
    service = f"kubernetes.io/service-name={settings.webhook_service}"
    by_name = f"metadata.name={settings.webhook_configuration}"
    return (
        Watch(client, SERVICES, cluster.services, keep=keep_service),
        Watch(client, NAMESPACES, cluster.namespaces, keep=keep_namespace),
        Watch(client, _resource(POD), cluster.pods, keep=keeper.pod),
        *(Watch(client, _resource(kind), cluster.workload_sink(kind), keep=keeper.workload) for kind in WORKLOADS),
        Watch(client, _resource(ENDPOINT_SLICE, namespace=settings.namespace, labels=service), slices),
        Watch(client, _resource(WEBHOOK_CONFIGURATION, fields=by_name), configuration),
    )


def _resource(
    kind: Kind, *, namespace: str | None = None, labels: str | None = None, fields: str | None = None
) -> Resource:
    where = f"/namespaces/{namespace}" if namespace else ""
    path = f"/{'apis' if kind.group else 'api'}/{kind.api_version}{where}/{kind.plural}"
    return Resource(name=kind.plural, path=path, label_selector=labels, field_selector=fields)


class PolicyListener:
    """Keeps `policies` true: Kopf tells at once, and a LIST of our own finds what Kopf has missed."""

    def __init__(self, api: Api, settings: Settings, policies: Policies, *, clock: Callable[[], float]) -> None:
        self._api = api
        self._settings = settings
        self._policies = policies
        self._clock = clock
        self._kopf = PolicyWatch(self._heard)
        self._began_anew = asyncio.Event()
        self._heard_at = clock()
        self.trouble = self._kopf.trouble

    def silent_s(self) -> float:
        """Since anything was heard of policies."""
        return self._clock() - self._heard_at

    async def run(self) -> NoReturn:
        await self._listed()
        # Kopf looks for the CRD only once: it is there by now.
        self._kopf.start()
        while True:
            try:
                async with asyncio.timeout(RELIST_S):
                    await self._began_anew.wait()
                    await asyncio.sleep(SAME_LIST_S)
            except TimeoutError:
                """It has been a minute."""
            self._began_anew.clear()
            await self._list()

    async def stop(self) -> None:
        await self._kopf.stop()

    async def _listed(self) -> None:
        """Returns after the first LIST, and tells before it what is not allowed."""
        told = False
        while not self._policies.listed:
            try:
                if not told and (denied := await missing(self._api, needs(self._settings))):
                    LOG.error("the controller is not allowed to do all that it does: %s", "; ".join(denied))
                told = True
            except ApiError as error:
                LOG.warning("it cannot be asked what is allowed: %s", error)
            await self._list()
            if not self._policies.listed:
                await asyncio.sleep(RETRY_S)

    async def _list(self) -> None:
        try:
            self._policies.replace(await self._api.list(CACHE_POLICY))
            self._heard_at = self._clock()
        except ApiError as error:
            LOG.warning("CachePolicies cannot be listed: %s", error)

    def _heard(self, kind: str | None, document: Document) -> None:
        self._heard_at = self._clock()
        if kind is None:
            # After a gap of which it will never tell what was deleted in it.
            self._began_anew.set()
        self._policies.heard(kind, document)
