"""The webhook's server, asked over TLS as the API server does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from pods import CONFIG, pod, server_side, service
from pulsecache_operator.certificates import Material, now_utc
from pulsecache_operator.injector.metrics import Metrics
from pulsecache_operator.injector.review import News
from pulsecache_operator.injector.server import MAX_BODY_BYTES, InjectorServer
from pulsecache_operator.injector.tls import Certificate
from pulsecache_policy.model import CachePolicy
from webhook import Caller, Known, certificate, patched, review, secret
from wire import until

KNOWN = Known([server_side()], [service()])


class Webhook:
    def __init__(self, material: Material, known: Any, **more: Any) -> None:
        self.material, self.metrics, self.news = material, Metrics(), list[News]()
        self.certificate = Certificate()
        self.certificate.put(secret(material))
        self.server = InjectorServer(
            "127.0.0.1",
            0,
            context=self.certificate.context,
            known=known,
            config=CONFIG,
            own_namespace="pulsecache-system",
            metrics=self.metrics,
            report=self.news.append,
            **more,
        )

    def caller(self, material: Material | None = None) -> Caller:
        return Caller(self.server.port, material or self.material)

    def counted(self, result: str, reason: str) -> float:
        labels = {"result": result, "reason": reason}
        return self.metrics.registry.get_sample_value("pulsecache_webhook_requests_total", labels) or 0.0


@asynccontextmanager
async def webhook(known: Any = KNOWN, **more: Any) -> AsyncIterator[Webhook]:
    hook = Webhook(certificate(), known, **more)
    await hook.server.start()
    try:
        yield hook
    finally:
        await hook.server.stop()


async def test_a_review_is_answered_and_counted() -> None:
    async with webhook() as hook, hook.caller() as caller:
        answer = await caller.ask(review(pod()))
        assert patched(pod(), answer)["spec"]["initContainers"][0]["name"] == "pulsecache"
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        other = pod()
        other["metadata"]["labels"] = {}
        await caller.ask(review(other))
        assert hook.counted("injected", "") == 1
        assert hook.counted("skipped", "no-policy") == 1
        assert hook.metrics.registry.get_sample_value("pulsecache_webhook_duration_seconds_count") == 2


async def test_news_is_reported_and_on_a_dry_run_it_is_not() -> None:
    async with webhook() as hook, hook.caller() as caller:
        await caller.ask(review(pod(hostNetwork=True), dryRun=True))
        assert hook.news == []
        await caller.ask(review(pod(hostNetwork=True)))
        assert [news.policy for news in hook.news] == ["products"]


# --- errors of ours ---------------------------------------------------------------------------------------------


class Broken(Known):
    def policies_of(self, namespace: str) -> Sequence[CachePolicy]:
        raise RuntimeError("a bug of ours")


@pytest.mark.parametrize(
    ("known", "given", "reason"),
    [
        (Broken(), pod(), "RuntimeError"),
        (KNOWN, None, "AttributeError"),
        (KNOWN, {"metadata": {"labels": {"app": "products"}}, "spec": {"containers": [{"ports": 7}]}}, "TypeError"),
        (KNOWN, {"metadata": {"labels": "text"}, "spec": {}}, "AttributeError"),
    ],
    ids=["bug", "no pod", "no ports", "no labels"],
)
async def test_an_error_of_ours_allows_the_pod_unchanged(
    known: Known, given: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with webhook(known) as hook, hook.caller() as caller:
        response = (await caller.ask(review(given, uid="u-9")))["response"]
        assert (response["uid"], response["allowed"]) == ("u-9", True)
        assert "patch" not in response
        assert reason in response["warnings"][0]
        assert hook.counted("error", reason) == 1
        assert "u-9" in caplog.text


@pytest.mark.parametrize("body", [b"", b"no JSON", b"{}", b"[]", b"\xff\xfe", b'{"apiVersion":' * 5000])
async def test_what_is_no_review_is_a_bad_request_and_the_server_lives_on(body: bytes) -> None:
    async with webhook() as hook, hook.caller() as caller:
        assert (await caller.send(body))[0] == 400
        assert hook.counted("error", "malformed-review") == 1
        await caller.ask(review(pod()))


async def test_a_review_of_several_mebibytes_is_answered_and_a_larger_one_refused() -> None:
    big = pod()
    big["metadata"]["managedFields"] = [{"manager": "x" * (4 * 1024 * 1024)}]
    async with webhook() as hook, hook.caller() as caller:
        assert "patch" in (await caller.ask(review(big)))["response"]
        status, text = await caller.send(io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))
        assert (status, hook.counted("error", "too-large")) == (413, 1)
        assert "more than 8388608 bytes" in text


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with webhook(deadline_s=0.1) as hook, hook.caller() as caller:
        status, _ = await caller.send(slowly())
        assert (status, hook.counted("error", "slow-body")) == (408, 1)


async def test_only_posts_to_inject_are_answered() -> None:
    async with webhook() as hook:
        context = ssl.create_default_context(cadata=hook.material.ca_bundle.decode())
        async with aiohttp.ClientSession() as session:
            for method, path, status in (("GET", "/inject", 405), ("POST", "/", 404), ("GET", "/metrics", 404)):
                url = f"https://127.0.0.1:{hook.server.port}{path}"
                name = "pulsecache-injector.pulsecache-system.svc"
                async with session.request(method, url, ssl=context, server_hostname=name) as response:
                    assert response.status == status


async def test_plain_http_and_broken_handshakes_do_no_harm() -> None:
    async with webhook() as hook, hook.caller() as caller:
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xff", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", hook.server.port)
            writer.write(rubbish)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 5)
            writer.close()
        await caller.ask(review(pod()))


# --- certificates -----------------------------------------------------------------------------------------------


async def test_a_hundred_rotations_under_load_fail_no_handshake_and_no_review() -> None:
    async with webhook() as hook:
        context = ssl.create_default_context(cadata=hook.material.ca_bundle.decode())
        done, stop = 0, False

        async def load() -> None:
            nonlocal done
            while not stop:
                async with Caller(hook.server.port, hook.material) as fresh:
                    await fresh.ask(review(pod()))
                    done += 1

        loaders = [asyncio.create_task(load()) for _ in range(4)]
        serials = set()
        material = hook.material
        for _ in range(100):
            material = certificate(material)
            hook.certificate.put(secret(material))
            _, writer = await asyncio.open_connection(
                "127.0.0.1", hook.server.port, ssl=context, server_hostname="pulsecache-injector.pulsecache-system.svc"
            )
            serials.add(writer.get_extra_info("peercert")["serialNumber"])
            writer.close()
        await until(lambda: done >= 20, "reviews meanwhile", within_s=20)
        stop = True
        await asyncio.gather(*loaders)
        assert len(serials) == 100


async def test_an_open_connection_survives_the_rotation() -> None:
    async with webhook() as hook, hook.caller() as caller:
        await caller.ask(review(pod()))
        hook.certificate.put(secret(certificate()))
        await caller.ask(review(pod()))
        other_ca = hook.caller()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await other_ca.ask(review(pod()))
        await other_ca.__aexit__()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data.pop("tls.key"),
        lambda data: data.pop("tls.crt"),
        lambda data: data.update({"tls.key": "!!!"}),
        lambda data: data.update({"tls.crt": ""}),
        lambda data: data.update({"tls.key": secret(certificate())["data"]["tls.key"]}),
        lambda data: data.update({"tls.crt": secret(certificate())["data"]["ca.key"]}),
    ],
    ids=["no key", "no certificate", "no base64", "empty", "another's key", "no certificate in it"],
)
async def test_a_secret_that_cannot_be_used_changes_nothing(harm: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with webhook() as hook:
        bad = secret(certificate())
        harm(bad["data"])
        hook.certificate.put(bad)
        assert "the certificate in use stays" in caplog.messages[-1]
        hook.certificate.put({"metadata": {"name": "empty"}})
        hook.certificate.drop(bad)
        hook.certificate.replace([])
        async with hook.caller() as caller:
            await caller.ask(review(pod()))


def test_a_certificate_tells_when_it_ends_and_is_loaded_once() -> None:
    ends = []
    loaded = Certificate(ends.append)
    assert not loaded.loaded.is_set()
    material = certificate()
    loaded.put({"metadata": {"name": "bad"}, "data": {}})
    assert not loaded.loaded.is_set()
    loaded.replace([secret(material)])
    loaded.put(secret(material))
    assert loaded.loaded.is_set()
    assert ends == [material.expiry()]
    assert ends[0] > now_utc() + timedelta(days=1)


# --- stopping ---------------------------------------------------------------------------------------------------


class Halves:
    """A review whose second half is sent when the test says so."""

    def __init__(self) -> None:
        self.text = json.dumps(review(pod())).encode()
        self.sending, self.end = asyncio.Event(), asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        yield self.text[:100]
        self.sending.set()
        await self.end.wait()
        yield self.text[100:]


async def test_a_review_that_is_half_here_is_answered_before_the_end() -> None:
    halves = Halves()
    async with webhook() as hook, hook.caller() as caller:
        port = hook.server.port
        asked = asyncio.create_task(caller.send(halves.body()))
        await halves.sending.wait()
        await until(lambda: hook.server._open == 1, "the first half")
        stopping = asyncio.create_task(hook.server.stop())
        await until(lambda: hook.server._site is None, "the port to close")
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        assert not asked.done()
        halves.end.set()
        status, answer = await asked
        assert (status, "patch" in json.loads(answer)["response"]) == (200, True)
        await asyncio.wait_for(stopping, 5)


async def test_who_does_not_finish_is_not_waited_for_longer_than_allowed() -> None:
    halves = Halves()
    async with webhook(drain_s=0.1, deadline_s=60.0) as hook, hook.caller() as caller:
        asked = asyncio.create_task(caller.send(halves.body()))
        await halves.sending.wait()
        await until(lambda: hook.server._open == 1, "the first half")
        await asyncio.wait_for(hook.server.stop(), 5)
        with pytest.raises(aiohttp.ClientError):
            await asked
