"""The Cache-Control field (RFC 9111 section 5.2), read so that what is malformed never makes an answer live longer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pulsecache_sidecar.core.http.message import Fields, combined

MAX_DELTA_S = 2**31
"""RFC 9111 section 1.2.2: greater values count as this one."""

Directives = Mapping[str, str | None]
"""Lower-case name -> argument, unquoted; None where there is none."""

_MEMBER = re.compile(r"[ \t,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:=(?:\"((?:[^\"\\]|\\.)*)\"|([^,\"]*)))?[ \t]*(?=,|\Z)")
_DIGITS = re.compile(r"[0-9]+")


def directives(fields: Fields) -> Directives:
    """The first of each directive counts (RFC 9111 section 4.2.1); a member that cannot be read is passed over, up to
    the next comma."""
    value = combined(fields, b"cache-control")
    if not value:
        return {}
    text = value.decode("latin-1")
    found: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            comma = text.find(",", position)
            position = len(text) if comma < 0 else comma + 1
            continue
        name, quoted, token = member.groups()
        argument = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        found.setdefault(name.lower(), argument if argument is None else argument.strip(" \t"))
        position = member.end()
    return found


def delta_seconds(argument: str | None) -> int:
    """Seconds of max-age and its kin; what is no number counts as 0: stale (RFC 9111 section 4.2.1)."""
    if argument is None or not _DIGITS.fullmatch(argument):
        return 0
    return MAX_DELTA_S if len(argument) > 10 else min(int(argument), MAX_DELTA_S)
