"""Listening sockets by address."""

from __future__ import annotations

import socket

from pulsecache_sidecar.config import Address

BACKLOG = 1024


def bind(address: Address) -> socket.socket:
    """A listening TCP socket; without a host one for all addresses, of both families where the system has both.

    Raises OSError with the address in its message.
    """
    try:
        if address.host is None:
            if socket.has_dualstack_ipv6():
                return socket.create_server(
                    ("", address.port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
                )
            return socket.create_server(("", address.port), backlog=BACKLOG)
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
