"""Flags and environment of the sidecar: what they mean, and that every mistake is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulsecache_sidecar.config import (
    Address,
    Bind,
    Config,
    ConfigError,
    load,
    parse_address,
    parse_bind,
    parse_origin,
    parser,
)


def settings(*arguments: str, environment: dict[str, str] | None = None, keys: tuple[str, ...] = ()) -> Config:
    return load(parser().parse_args(["run", "--data", "/data", *arguments]), environment or {}, keys)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("*:15080", Address(None, 15080)),
        (":15080", Address(None, 15080)),
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("fd00::7:8080", Address("fd00::7", 8080)),
    ],
)
def test_an_address_is_split_at_its_last_colon(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:http", "host:65536", "host:-1", "host:1_0", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://products.shop.svc", Address("products.shop.svc", 80)),
        ("http://10.0.0.7:8080", Address("10.0.0.7", 8080)),
        ("http://fd00::7:8080", Address("fd00::7", 8080)),
        ("http://[fd00::7]", Address("fd00::7", 80)),
        ("http://a:8080/", Address("a", 8080)),
    ],
)
def test_an_origin_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_origin(text) == address


@pytest.mark.parametrize("text", ["", "a:80", "https://a", "http://", "http://a/b", "http://u@a", "http://*:80"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        parse_origin(text)


def test_a_bind_names_its_policy_in_the_pods_namespace() -> None:
    assert parse_bind("products=*:15080,http://10.0.0.7:8080", "shop") == Bind(
        "shop/products", Address(None, 15080), Address("10.0.0.7", 8080)
    )


def test_one_policy_by_hand_needs_no_bind() -> None:
    found = settings(
        "--policy", "p.yaml", "--listen", "127.0.0.1:1", "--origin", "http://127.0.0.1:2", keys=("default/p",)
    )
    assert found.binds == (Bind("default/p", Address("127.0.0.1", 1), Address("127.0.0.1", 2)),)
    assert found.policy_files == (Path("p.yaml"),)


def test_in_a_pod_identity_and_redis_come_from_the_environment() -> None:
    found = settings(
        "--bind",
        "products=*:15080,http://10.0.0.7:8080",
        environment={
            "PULSECACHE_POD_NAME": "products-1",
            "PULSECACHE_POD_NAMESPACE": "shop",
            "PULSECACHE_POD_UID": "u",
            "PULSECACHE_REDIS_URL": "redis://r:6379",
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        },
    )
    assert (found.pod.name, found.pod.namespace, found.pod.uid) == ("products-1", "shop", "u")
    assert found.redis_url == "redis://r:6379"
    assert found.log_format == "json"


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings("--bind", "a", "--bind", "b=*:1,ftp://x", "--redis", "http://r", "--admin", "nowhere", "--drain", "-1")
    assert len(caught.value.errors) == 5


def test_two_policies_on_one_address_are_refused() -> None:
    with pytest.raises(ConfigError, match="bound twice"):
        settings("--bind", "a=*:1,http://x", "--bind", "b=*:1,http://x")


def test_listening_without_an_origin_is_refused() -> None:
    with pytest.raises(ConfigError, match="belong together"):
        settings("--listen", "*:1")


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to do"):
        settings()
