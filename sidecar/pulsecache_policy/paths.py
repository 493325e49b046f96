"""The two forms of a request's path: the one that keys use, and the one that rules and tags use.

`normalise_path` gives the normal form of RFC 3986 section 6.2.2 and tells apart what may be different resources; it
refuses what servers are known to read in different ways. `resource` goes on and brings together what may be the
same resource (`/a%40b` and `/a@b`, `/a;v=1` and `/a`): an answer is only ever found under its own path, but a write
invalidates every spelling of it.
"""

from __future__ import annotations

import re

_REFUSED = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]|//|%(?![0-9A-Fa-f]{2})")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_AMBIGUOUS = re.compile(r"/\.{1,2}(?:/|$)|%(?:[01][0-9A-F]|7F|2F|5C)")
"""Dot segments, and encoded control characters (NUL among them), slash and backslash."""
_PARAMETERS = re.compile(r";[^/]*")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEGMENT = _UNRESERVED | frozenset("!$&'()*+,;=:@")


def decode_unreserved(text: str) -> str:
    """Percent-encodings of unreserved characters decoded, the others in upper case (RFC 3986 section 6.2.2)."""
    return _decode(text, _UNRESERVED) if "%" in text else text


def normalise_path(path: str) -> str | None:
    """The normal form of a path as it was sent, or None where no rule may look at it.

    None: not a path of RFC 3986 (raw non-ASCII, blanks, a stray "%"), an empty segment, an encoded slash, backslash
    or control character, and dot segments, encoded or not: the request is forwarded as it was sent, and whether an
    origin resolves them is not known here. Such a request passes through; what it writes cannot be named.
    """
    # First the form, then the decoding: of a malformed text ("%%34%31") it would make a well-formed one.
    if not path.startswith("/") or _REFUSED.search(path):
        return None
    normal = decode_unreserved(path)
    return None if _AMBIGUOUS.search(normal) else normal


def resource(normal: str) -> str:
    """What a normalised path is about: every character that a segment may carry decoded, path parameters cut off."""
    if "%" in normal:
        normal = _decode(normal, _SEGMENT)
    return _PARAMETERS.sub("", normal) if ";" in normal else normal


def path_tag(path: str) -> str | None:
    """The tag of everything cached for a path as it was sent; None where `normalise_path` says None, and a write to
    it can only be announced as a change of the whole dataset."""
    normal = normalise_path(path)
    return None if normal is None else resource(normal)


def _decode(text: str, plain: frozenset[str]) -> str:
    def one(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in plain else found[0].upper()

    return _ENCODED.sub(one, text)
