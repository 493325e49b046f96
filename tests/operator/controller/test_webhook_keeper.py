"""The webhook's Secret and caBundle, and the question whether a pod that is created now gets a sidecar."""

from __future__ import annotations

import base64
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pulsecache_operator.certificates import Material
from pulsecache_operator.controller.api import SECRET, WEBHOOK_CONFIGURATION, Conflict, Kind, NotFound
from pulsecache_operator.controller.webhook import WARM_S, InjectionGate, WebhookKeeper
from pulsecache_operator.settings import parse

Document = dict[str, Any]
SETTINGS = parse(["controller"], {"PULSECACHE_NAMESPACE": "pulsecache", "PULSECACHE_SIDECAR_IMAGE": "i"})[1]


class Objects:
    """One Secret and one webhook configuration, with the API server's word on conflicts and tests."""

    def __init__(self) -> None:
        self.there: dict[str, Document] = {}
        self.written: list[str] = []
        self.before_write: Any = lambda: None

    def _get(self, kind: Kind) -> Document:
        if kind.kind not in self.there:
            raise NotFound(404, "not there")
        return self.there[kind.kind]

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Document:
        return deepcopy(self._get(kind))

    async def create(self, kind: Kind, document: Document) -> Document:
        self.before_write()
        if kind.kind in self.there:
            raise Conflict(409, "exists")
        self.there[kind.kind] = deepcopy(document)
        self.there[kind.kind]["metadata"]["resourceVersion"] = "1"
        self.written.append(f"create {kind.kind}")
        return document

    async def patch(self, kind: Kind, patch: Any, name: str, namespace: str | None = None) -> Document:
        self.before_write()
        found = self._get(kind)
        if isinstance(patch, dict):
            version = found["metadata"]["resourceVersion"]
            if patch["metadata"]["resourceVersion"] != version:
                raise Conflict(409, "changed")
            found["data"] = (found.get("data") or {}) | patch["data"]
            found["metadata"]["resourceVersion"] = str(int(version) + 1)
        else:
            for operation in patch:
                _, _, index, field, *rest = operation["path"].split("/")
                webhook = found["webhooks"][int(index)]
                if operation["op"] == "test":
                    if webhook[field] != operation["value"]:
                        raise Conflict(409, "test failed")
                else:
                    webhook[field][rest[0]] = operation["value"]
        self.written.append(f"patch {kind.kind}")
        return found


class Scene:
    def __init__(self) -> None:
        self.api = Objects()
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.expiry: datetime | None = None
        self.keeper = WebhookKeeper(
            self.api,  # type: ignore[arg-type]  # the three methods that it needs
            SETTINGS,
            expires=self._expires,
            wall=lambda: self.wall,
        )

    def _expires(self, end: datetime) -> None:
        self.expiry = end

    def configure(self, *names: str) -> None:
        self.api.there[WEBHOOK_CONFIGURATION.kind] = {
            "webhooks": [{"name": name, "clientConfig": {"service": {"name": "x"}}, "rules": []} for name in names]
        }

    @property
    def material(self) -> Material:
        data = self.api.there[SECRET.kind]["data"]
        return Material.of({key: base64.b64decode(value) for key, value in data.items()})

    @property
    def bundles(self) -> list[bytes]:
        webhooks = self.api.there[WEBHOOK_CONFIGURATION.kind]["webhooks"]
        return [base64.b64decode(webhook["clientConfig"].get("caBundle", "")) for webhook in webhooks]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_all_is_made_and_then_left_alone(scene: Scene) -> None:
    scene.configure("inject.pulsecache.dev")
    await scene.keeper.keep()
    assert scene.keeper.problem is None
    assert scene.bundles == [scene.material.ca_bundle]
    assert scene.expiry == scene.wall + timedelta(days=7)
    scene.api.written.clear()
    await scene.keeper.keep()
    assert scene.api.written == []


async def test_only_the_cabundle_is_written(scene: Scene) -> None:
    scene.configure("inject.pulsecache.dev")
    before = deepcopy(scene.api.there[WEBHOOK_CONFIGURATION.kind])
    await scene.keeper.keep()
    after = scene.api.there[WEBHOOK_CONFIGURATION.kind]
    del after["webhooks"][0]["clientConfig"]["caBundle"]
    assert after == before


async def test_a_secret_that_the_chart_made_empty_is_filled(scene: Scene) -> None:
    scene.api.there[SECRET.kind] = {"metadata": {"resourceVersion": "7"}}
    scene.configure("inject.pulsecache.dev")
    await scene.keeper.keep()
    assert scene.api.written[0] == "patch Secret"
    assert scene.bundles == [scene.material.ca_bundle]


async def test_values_that_are_no_base64_are_made_anew(scene: Scene) -> None:
    scene.api.there[SECRET.kind] = {"metadata": {"resourceVersion": "7"}, "data": {"ca.crt": "§", "ca.key": None}}
    scene.configure("inject.pulsecache.dev")
    await scene.keeper.keep()
    assert scene.bundles == [scene.material.ca_bundle]


async def test_of_two_that_renew_at_once_one_has_to_look_again(scene: Scene) -> None:
    scene.api.there[SECRET.kind] = {"metadata": {"resourceVersion": "7"}}
    scene.configure("inject.pulsecache.dev")

    def other_writes() -> None:
        scene.api.there[SECRET.kind]["metadata"]["resourceVersion"] = "8"
        scene.api.before_write = lambda: None

    scene.api.before_write = other_writes
    with pytest.raises(Conflict):
        await scene.keeper.keep()
    assert "data" not in scene.api.there[SECRET.kind]
    await scene.keeper.keep()
    assert scene.keeper.problem is None


async def test_a_configuration_that_was_changed_meanwhile_is_not_written_into(scene: Scene) -> None:
    scene.configure("inject.pulsecache.dev")
    await scene.keeper.keep()
    scene.configure("inject.pulsecache.dev")
    scene.api.before_write = lambda: scene.configure("of.somebody.else")
    with pytest.raises(Conflict):
        await scene.keeper.keep()
    assert scene.bundles == [b""]


async def test_without_a_configuration_nobody_is_called(scene: Scene) -> None:
    await scene.keeper.keep()
    assert scene.keeper.problem == "there is no MutatingWebhookConfiguration apulsecache-injector"
    scene.configure()
    await scene.keeper.keep()
    assert scene.keeper.problem == "the MutatingWebhookConfiguration apulsecache-injector has no webhooks"


async def test_a_new_ca_reaches_the_configuration_at_once(scene: Scene) -> None:
    scene.configure("inject.pulsecache.dev")
    await scene.keeper.keep()
    old = scene.material.ca_bundle
    scene.wall += timedelta(days=250)
    await scene.keeper.keep()
    assert old in scene.material.ca_bundle
    assert scene.bundles == [scene.material.ca_bundle]


class TestGate:
    @pytest.fixture
    def slices(self) -> list[Document]:
        return []

    @pytest.fixture
    async def gate(self, scene: Scene, slices: list[Document]) -> InjectionGate:
        self.now = 100.0
        scene.configure("inject.pulsecache.dev")
        await scene.keeper.keep()
        return InjectionGate(scene.keeper, slices, service="pulsecache-injector", clock=lambda: self.now)

    def test_it_opens_a_moment_after_an_injector_is_ready(self, gate: InjectionGate, slices: list[Document]) -> None:
        assert gate.problem() == "no injector is Ready (Service pulsecache-injector has no ready endpoints)"
        slices.append({"endpoints": [{"conditions": {"ready": False}}, {"conditions": {"ready": True}}]})
        assert gate.problem() == "an injector has become Ready just now"
        self.now += WARM_S
        assert gate.problem() is None

    def test_it_closes_at_once_and_opens_anew(self, gate: InjectionGate, slices: list[Document]) -> None:
        slices.append({"endpoints": [{"conditions": {}}]})
        gate.problem()
        self.now += WARM_S
        assert gate.problem() is None
        slices[:] = [{"endpoints": None}]
        assert gate.problem() is not None
        slices[:] = [{"endpoints": [{}]}]
        assert gate.problem() == "an injector has become Ready just now"

    async def test_an_api_server_that_does_not_trust_the_injector_keeps_it_closed(
        self, gate: InjectionGate, scene: Scene, slices: list[Document]
    ) -> None:
        slices.append({"endpoints": [{"conditions": {"ready": True}}]})
        del scene.api.there[WEBHOOK_CONFIGURATION.kind]
        await scene.keeper.keep()
        assert gate.problem() == "there is no MutatingWebhookConfiguration apulsecache-injector"
