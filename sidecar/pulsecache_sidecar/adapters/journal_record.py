"""How the journal writes a request down: a line of ASCII JSON and the body, with a checksum over both.

Bytes of the head are kept as latin-1 text, so whatever a client sent comes back as it was; JSON escapes everything
else, so a person reads the record with any SQLite shell. What changes later (attempts, death) is not part of it.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.ports import PendingWrite


class DamagedRecord(Exception):
    """The bytes are not those that were written down."""


def encode(write: PendingWrite) -> tuple[str, int]:
    """The record of a write (without its id, attempts and body), and the checksum of record and body."""
    request = write.request
    record = json.dumps(
        {
            "policy": write.policy,
            "rule": write.rule,
            "order_key": write.order_key,
            "idempotency_key": write.idempotency_key,
            "shows": write.shows,
            "tags": write.tags,
            "accepted": write.accepted_wall,
            "method": request.method,
            "target": request.target.decode("latin-1"),
            "version": request.version,
            "peer": request.peer,
            "fields": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.fields],
        },
        separators=(",", ":"),
    )
    return record, checksum(record, write.body)


def checksum(record: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(record.encode("ascii")))


def decode(write_id: int, record: str, body: bytes, expected: int, attempts: int) -> PendingWrite:
    """Raises DamagedRecord."""
    try:
        if checksum(record, body) != expected:
            raise DamagedRecord(f"checksum of write {write_id}")
        fields: dict[str, Any] = json.loads(record)
        major, minor = fields["version"]
        return PendingWrite(
            id=write_id,
            policy=fields["policy"],
            rule=fields["rule"],
            order_key=fields["order_key"],
            idempotency_key=fields["idempotency_key"],
            request=RequestHead(
                method=fields["method"],
                target=fields["target"].encode("latin-1"),
                fields=tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields["fields"]),
                version=(major, minor),
                peer=fields["peer"],
            ),
            body=body,
            tags=tuple(fields["tags"]),
            accepted_wall=fields["accepted"],
            attempts=attempts,
            shows=fields["shows"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecord(f"write {write_id}: {error}") from error
