"""Whether an answer may depend on who asks (RFC 9111 section 3.5, and cookies treated alike).

An entry that is not keyed by the credentials a request carries is *shared* as far as that request goes. It may then
neither be filled nor used, unless the origin said that anybody may have it.
"""

from __future__ import annotations

from pulsecache_policy.model import Principal, PrincipalType
from pulsecache_sidecar.core.http.cache_control import Directives
from pulsecache_sidecar.core.http.message import Fields


def unkeyed(fields: Fields, principal: Principal | None) -> bytes | None:
    """The field with credentials that the key does not hold: b"authorization", b"cookie", or None."""
    names = {name for name, value in fields if value}
    if b"authorization" in names and not _is_header(principal, "authorization"):
        return b"authorization"
    if b"cookie" in names and not (
        principal is not None and (principal.type is PrincipalType.COOKIE or _is_header(principal, "cookie"))
    ):
        return b"cookie"
    return None


def for_anyone(control: Directives) -> bool:
    """The origin's own word that the answer does not depend on who asks."""
    return "public" in control or "s-maxage" in control or "must-revalidate" in control


def credentials(fields: Fields) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(sorted(field for field in fields if field[0] in (b"authorization", b"cookie")))


def _is_header(principal: Principal | None, name: str) -> bool:
    return principal is not None and principal.type is PrincipalType.HEADER and principal.name.lower() == name
