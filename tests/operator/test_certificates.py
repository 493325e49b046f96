"""The webhook's certificates: from any state to a good one, and a rotation in which no handshake ever fails."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pulsecache_operator.certificates import CA_LIFE, LEAF_LIFE, LEARN, Material, dns_names, now_utc, renew

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = dns_names("pulsecache-injector", "pulsecache")


def made(now: datetime = T0) -> Material:
    return renew(Material(), NAMES, now).material


def cas(material: Material) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(material.ca_bundle)


def leaf(material: Material) -> x509.Certificate:
    return x509.load_pem_x509_certificate(material.certificate)


def test_from_nothing_all_is_made() -> None:
    renewal = renew(Material(), NAMES, T0)
    assert renewal.done == (
        "new CA: there is none that is valid",
        "new certificate: there is none with its key",
    )
    material = renewal.material
    leaf(material).verify_directly_issued_by(cas(material)[0])
    assert material.expiry() == T0 + LEAF_LIFE
    assert cas(material)[0].not_valid_after_utc == T0 + CA_LIFE
    assert Material.of(material.data()) == material


def test_what_is_good_stays_byte_for_byte() -> None:
    material = made()
    again = renew(material, NAMES, T0 + timedelta(days=4))
    assert again.material == material
    assert again.done == ()


def test_a_leaf_is_renewed_after_two_thirds_of_its_life() -> None:
    material = made()
    renewal = renew(material, NAMES, T0 + timedelta(days=4, hours=18))
    assert renewal.done == ("new certificate: two thirds of the life of the old one are over",)
    assert renewal.material.ca_bundle == material.ca_bundle
    assert renewal.material.key != material.key
    leaf(renewal.material).verify_directly_issued_by(cas(material)[0])


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"ca_bundle": b""}, "new CA: there is none that is valid"),
        ({"ca_bundle": b"-----BEGIN CERTIFICATE-----\nnonsense"}, "new CA: there is none that is valid"),
        ({"ca_key": b""}, "new CA: the key of the old one is lost"),
        ({"ca_key": made().ca_key}, "new CA: the key of the old one is lost"),
        ({"certificate": b"nonsense"}, "new certificate: there is none with its key"),
        ({"key": b""}, "new certificate: there is none with its key"),
        ({"key": made().key}, "new certificate: its key belongs to another one"),
        ({"certificate": made().certificate, "key": made().key}, "new certificate: its key belongs to another one"),
    ],
)
def test_what_is_broken_is_made_anew(broken: dict[str, bytes], reason: str) -> None:
    renewal = renew(replace(made(), **broken), NAMES, T0 + timedelta(hours=1))
    assert reason in renewal.done
    leaf(renewal.material)
    assert renew(renewal.material, NAMES, T0 + timedelta(hours=1)).done == ()


def test_a_leaf_of_a_stranger_is_replaced() -> None:
    stranger = made()
    renewal = renew(replace(made(), certificate=stranger.certificate, key=stranger.key), NAMES, T0)
    assert renewal.done == ("new certificate: no trusted CA has signed it",)


def test_another_service_wants_another_leaf() -> None:
    renewal = renew(made(), dns_names("other", "pulsecache"), T0)
    assert renewal.done == ("new certificate: it is not for other.pulsecache.svc",)


def test_a_lost_ca_key_does_not_end_a_good_leaf() -> None:
    material = made()
    renewal = renew(replace(material, ca_key=b""), NAMES, T0 + timedelta(hours=1))
    assert renewal.material.certificate == material.certificate
    assert len(cas(renewal.material)) == 2


def test_all_has_expired() -> None:
    renewal = renew(made(), NAMES, T0 + timedelta(days=400))
    assert renewal.done == ("new CA: there is none that is valid", "new certificate: it has expired")
    assert len(cas(renewal.material)) == 1


def test_a_new_ca_is_announced_before_it_signs_and_the_old_one_stays_as_long_as_its_leaves_live() -> None:
    """Three years, looked at every six hours: whoever trusts the last bundle trusts the next leaf, and vice versa."""
    now, material = T0, made()
    step = timedelta(hours=6)
    rotations = leaves = 0
    announced = {cas(material)[0].serial_number: T0 - LEARN}
    old_leaves = [leaf(material)]
    while now < T0 + timedelta(days=3 * 365):
        now += step
        renewal = renew(material, NAMES, now)
        if not renewal.done:
            continue
        before, material = material, renewal.material
        rotations += any(done.startswith("new CA") for done in renewal.done)
        for ca in cas(material):
            announced.setdefault(ca.serial_number, now)
        (signer,) = [ca for ca in cas(material) if ca.subject == leaf(material).issuer]
        assert now - announced[signer.serial_number] >= LEARN
        assert signer.public_bytes(Encoding.PEM) in before.ca_bundle, (
            "a server that has not seen the new bundle trusts it"
        )
        if leaf(material) != old_leaves[-1]:
            leaves += 1
            old_leaves.append(leaf(material))
        for served in old_leaves[-2:]:
            if now < served.not_valid_after_utc:
                assert any(ca.subject == served.issuer for ca in cas(material))
        assert now < leaf(material).not_valid_after_utc - LEAF_LIFE / 4
        assert len(cas(material)) <= 2
        assert "an old CA is no longer trusted" in renewal.done or len(cas(material)) >= len(cas(before))
    assert rotations == 4
    assert leaves > 200


async def test_a_real_handshake_with_name_and_chain(tmp_path: Path) -> None:
    material = made(now_utc())
    (tmp_path / "tls.crt").write_bytes(material.certificate)
    (tmp_path / "tls.key").write_bytes(material.key)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client_side = ssl.create_default_context(cadata=material.ca_bundle.decode())
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server_side) as server:
        port = server.sockets[0].getsockname()[1]
        for name in NAMES:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname=name)
            assert await reader.read() == b"hello"
            writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname="elsewhere.svc")
