"""The cache key: who is answered by which entry. This is a security boundary.

Two requests share a key only if nothing that the policy or HTTP lets an answer depend on differs between them. In
doubt this module tells apart, or refuses: a needless miss costs time, a wrong hit gives one client another's answer.
What may be *stored* at all (Authorization, cookies, Vary) is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pulsecache_policy.match import ReadMatch
from pulsecache_policy.model import Principal, PrincipalType, QueryKey, QueryMode
from pulsecache_policy.paths import decode_unreserved

_MALFORMED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LOOSE = re.compile(r"[.\- +_]+")


@dataclass(frozen=True, slots=True)
class CacheKey:
    digest: str
    """32 hexadecimal characters."""
    principal: bool
    """Whether a principal is part of the key: such an entry stays in memory."""


@dataclass(frozen=True, slots=True)
class Unkeyable:
    """The request is not answered from the cache, nor its answer stored."""

    reason: str
    """`no-principal`, `ambiguous-principal`, `ambiguous-query` or `method`."""


def cache_key(
    match: ReadMatch,
    *,
    scheme_authority: str,
    query: str,
    fields: Sequence[tuple[bytes, bytes]],
    method: str,
) -> CacheKey | Unkeyable:
    """`scheme_authority` is the Host of the request, `query` what follows "?" as it was sent ("" for none), `fields`
    the request's with lower-case names. GET and HEAD share a key: HEAD is answered from what a GET stored."""
    if method not in ("GET", "HEAD"):
        return Unkeyable("method")
    spec = match.rule.key
    selected = _query(spec.query, query)
    if isinstance(selected, Unkeyable):
        return selected
    principal = b"" if spec.principal is None else _principal(spec.principal, fields)
    if isinstance(principal, Unkeyable):
        return principal
    parts = [b"1", match.revision.encode(), _bytes(scheme_authority.lower()), match.path.encode(), selected]
    for name in spec.headers:
        values = [value for key, value in fields if key == name.encode()]
        parts.append(_frame(values))
    parts.append(principal)
    return CacheKey(hashlib.sha256(_frame(parts)).hexdigest()[:32], spec.principal is not None)


def read_key(match: ReadMatch, authority: str) -> CacheKey | Unkeyable:
    """The key of the entry that a write refreshes: the one without a query. The parser sees to it that such a rule
    keys on no header and no principal."""
    return cache_key(match, scheme_authority=authority, query="", fields=(), method="GET")


def _frame(parts: Iterable[bytes]) -> bytes:
    """Length-prefixed, so no two lists of parts have the same encoding."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _query(spec: QueryKey, query: str) -> bytes | Unkeyable:
    if spec.mode is QueryMode.NONE or not query:
        return b""
    # Some origins split at ";" too, and each decodes a stray "%" in its own way: which pairs there are is then not
    # known, so none may be left out and none reordered.
    if ";" in query or _MALFORMED.search(query):
        return b"raw:" + _bytes(query) if spec.mode is QueryMode.ALL else Unkeyable("ambiguous-query")
    pairs = [decode_unreserved(pair) for pair in query.split("&")]
    names = frozenset(spec.names)
    match spec.mode:
        case QueryMode.ONLY:
            # Anything that an origin might take for a listed name counts as one: `page[]`, `Page`, `p%61ge`.
            wanted = frozenset(map(_loose, names))
            pairs = [pair for pair in pairs if _loose(_name(pair)) in wanted]
        case QueryMode.EXCEPT:
            pairs = [pair for pair in pairs if _name(pair) not in names]
    # By loose name, and stable: the order among what an origin may take for one name is kept.
    return _frame(map(_bytes, sorted(pairs, key=lambda pair: _loose(_name(pair)))))


def _name(pair: str) -> str:
    return pair.split("=", 1)[0]


def _loose(name: str) -> str:
    if name.isascii() and name.isalnum():
        return name.lower()
    decoded = unquote(name.replace("+", " "), "latin-1").split("[", 1)[0].split("\0", 1)[0]
    return _LOOSE.sub("_", decoded.strip().lower())


def _principal(principal: Principal, fields: Sequence[tuple[bytes, bytes]]) -> bytes | Unkeyable:
    match principal.type:
        case PrincipalType.HEADER:
            name = principal.name.lower().encode()
            values = [value for key, value in fields if key == name]
        case PrincipalType.COOKIE:
            name = principal.name.encode()
            pairs = (
                pair.strip(b" \t").partition(b"=")
                for key, value in fields
                if key == b"cookie"
                for pair in value.split(b";")
            )
            values = [value.strip(b" \t") for key, sign, value in pairs if sign and key.strip(b" \t") == name]
    if not any(values):
        return Unkeyable("no-principal")
    # Several values, or half of a quoted one that held a ";": who it is depends on the reader.
    if len(values) > 1 or values[0].count(b'"') % 2:
        return Unkeyable("ambiguous-principal")
    return values[0]
