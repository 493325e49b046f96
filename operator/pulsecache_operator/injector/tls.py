"""The webhook's certificate: from a Secret that the controller keeps, into one SSL context that lives for ever.

A new certificate is loaded into the context that is in use: handshakes from then on get it, connections that are open
keep the old one, and the port is never closed. A Secret that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from cryptography import x509

from pulsecache_operator.placement import Object, meta
from pulsecache_operator.watch import Resource

log = logging.getLogger(__name__)


def secret(namespace: str, name: str) -> Resource:
    """The watch of one Secret; RBAC can allow just that by `resourceNames`."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    return Resource(name="certificate", path=path, field_selector=f"metadata.name={name}")


class Certificate:
    """The sink of the Secret's watch."""

    def __init__(self, on_expiry: Callable[[datetime], None] = lambda _: None) -> None:
        """`on_expiry` hears when each certificate that is loaded will end."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.loaded = asyncio.Event()
        self._on_expiry = on_expiry
        self._pair: tuple[bytes, bytes] | None = None

    def replace(self, objects: Sequence[Object]) -> None:
        for item in objects:
            self.put(item)
        if not objects and not self.loaded.is_set():
            log.info("there is no Secret with a certificate yet: the controller will make one")

    def put(self, item: Object) -> None:
        data = item.get("data") or {}
        name = meta(item).get("name")
        try:
            pair = _decoded(data, "tls.crt"), _decoded(data, "tls.key")
            if pair == self._pair:
                return
            expiry = self._load(*pair)
        except (KeyError, ValueError, OSError) as error:  # an ssl.SSLError is an OSError
            what = "the certificate in use stays" if self.loaded.is_set() else "the webhook waits for a good one"
            log.error("the certificate in Secret %s cannot be used (%s): %s", name, error or type(error).__name__, what)
            return
        self._pair = pair
        self._on_expiry(expiry)
        self.loaded.set()
        log.info("certificate loaded from Secret %s, good until %s", name, expiry.isoformat())

    def drop(self, item: Object) -> None:
        log.warning("Secret %s is gone: its certificate stays in use", meta(item).get("name"))

    def _load(self, certificate: bytes, key: bytes) -> datetime:
        expiry = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
        with _file(certificate + b"\n" + key) as path:
            # A pair that does not match would leave the context with half of it: try it on another one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
            self.context.load_cert_chain(path)
        return expiry


def _decoded(data: Object, key: str) -> bytes:
    try:
        return base64.b64decode(data[key], validate=True)
    except KeyError:
        raise ValueError(f"it has no {key}") from None
    except binascii.Error as error:
        raise ValueError(f"{key} is not base64: {error}") from None


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A path to the content, because OpenSSL reads certificates from nothing else; in memory where that can be had."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pulsecache-certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
