"""HTTP-date in its three forms (RFC 9110 section 5.6.7), strictly: what is not one of them is no date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    re.compile(_DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT"),
    re.compile(_LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"),
    re.compile(_DAY + rb" " + _MONTH + rb" (?P<day>[0-9]{2}| [0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"),
)


def parse_date(value: bytes, now_wall: float) -> float | None:
    """Seconds since 1970, or None. A two-digit year lies at most 50 years after `now_wall`."""
    for form in _FORMS:
        found = form.fullmatch(value)
        if found:
            break
    else:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        this_year = datetime.fromtimestamp(now_wall, UTC).year
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    leap = found["second"] == b"60"
    try:
        moment = datetime(
            year,
            _MONTHS.index(found["month"]) + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            59 if leap else int(found["second"]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return (moment + timedelta(seconds=1 if leap else 0)).timestamp()


def format_date(wall: float) -> bytes:
    """IMF-fixdate, without the locale's names."""
    moment = datetime.fromtimestamp(int(wall), UTC)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    month = _MONTHS[moment.month - 1].decode()
    return (
        f"{day}, {moment.day:02d} {month} {moment.year:04d} "
        f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} GMT"
    ).encode()
