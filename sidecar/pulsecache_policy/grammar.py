"""The small grammars of the policy language, and its limits.

The CRD carries the same patterns and numbers; `tests/crd` compares the two. Nothing here knows documents or paths
in them: that is `parse`.

Patterns are those of both Python and RE2 (no look-around), and are always used with `fullmatch`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DURATION = r"([0-9]{1,6}(ms|s|m|h)){1,4}"
"""Go's duration without fractions, days and units below the millisecond; 16 characters at most, so never too long."""
DURATION_MAX_LENGTH = 16
QUANTITY = r"[0-9]{1,12}(k|M|G|Ki|Mi|Gi)?"
"""Kubernetes' resource quantity, whole numbers only."""
DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SERVICE_NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
LABEL_KEY = (
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
LABEL_KEY_MAX_LENGTH = 317
LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
FIELD_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
"""RFC 9110 section 5.6.2: names of fields and cookies."""
PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
UPSTREAM = rf"http://[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:{PORT})?"

QUERY_NAME = r"([A-Za-z0-9._~!$'()*,:@/?\[\]-]|%[0-9A-F]{2})+"
PLACEHOLDER = r"[{][A-Za-z_][A-Za-z0-9_]*[}]"
PATH_LITERAL = r"([A-Za-z0-9._~!$&'()*+,=:@-]|%(20|22|23|25|3C|3E|3F|5B|5D|5E|60|7B|7C|7D|[89A-F][0-9A-F]))+"
"""A literal segment in the one form that a request's segment is compared in (`match.resource`): only what must be
percent-encoded is, in upper case, and there is no `;`, `/` or `\\`."""
REST = r"[{][A-Za-z_][A-Za-z0-9_]*[*][}]"
PATH = rf"/({REST})?|(/({PATH_LITERAL}|{PLACEHOLDER}))+(/({REST})?)?"
"""A path template. Said elsewhere: no segment is a dot segment, no name is there twice."""
TAG = rf"[A-Za-z0-9_]([A-Za-z0-9_.:/@=-]|{PLACEHOLDER})*"
"""A tag template. It starts with a literal character, so no request can make it a path tag ("/...") or the tag "*"."""

TEXT_MAX_LENGTH = 256
NAME_MAX_LENGTH = 63
POLICY_NAME_MAX_LENGTH = 50
"""Names derived from a policy's (`pulsecache-<policy>`, label values) must fit as well."""
MAX_RULES = 64
MAX_TAGS = 16
MAX_LABELS = 16
MAX_HEADERS = 16
MAX_NAMES = 32
MAX_PATH_NAMES = 8
MAX_TAG_NAMES = 4
"""More could not be compared with the path's within the API server's budget for CEL."""

READ_METHODS = ("GET", "HEAD")
WRITE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
PENDING_STATUSES = (200, 202, 204)
CREDENTIAL_FIELDS = ("authorization", "proxy-authorization", "cookie")
"""Fields that name a principal: a key on them as plain headers would put private answers into shared stores."""

KI = 1024
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": KI, "Mi": KI**2, "Gi": KI**3}
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds, and how people write them."""

    low: int
    high: int
    text: str

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


def _durations(low: str, high: str) -> Range:
    return Range(milliseconds(low), milliseconds(high), f"between {low} and {high}")


def too_long(text: str, most: int) -> str:
    return f"has {len(text)} characters, at most {most} are allowed"


def milliseconds(text: str) -> int:
    """Raises ValueError with what is expected."""
    if len(text) > DURATION_MAX_LENGTH or not re.fullmatch(DURATION, text):
        raise ValueError("must be a duration such as 500ms, 5s or 1m30s (units h, m, s, ms; no fractions, no days)")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h)", text))


def quantity(text: str) -> int:
    """Raises ValueError with what is expected."""
    if not re.fullmatch(QUANTITY, text):
        raise ValueError("must be a whole number of bytes, or one with a suffix, such as 64Mi (k, M, G, Ki, Mi, Gi)")
    digits = text.rstrip("kKMGi")
    return int(digits) * _SUFFIXES[text[len(digits) :]]


MEMORY_BYTES = Range(KI**2, 64 * KI**3, "between 1Mi and 64Gi")
MAX_CONCURRENCY = Range(1, 10_000, "between 1 and 10000")
FAILURE_THRESHOLD = Range(1, 100, "between 1 and 100")
JOURNAL_ENTRIES = Range(1, 10_000_000, "between 1 and 10000000")
ORIGIN_TIMEOUT_MS = _durations("100ms", "1h")
STALENESS_MAX_MS = _durations("100ms", "24h")
HEARTBEAT_INTERVAL_MS = _durations("50ms", "1m")
SETTLE_MS = _durations("100ms", "1h")
TTL_MS = _durations("1ms", "8760h")
