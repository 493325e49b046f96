"""The parser's side of the table that parser and API server share."""

from __future__ import annotations

import pytest

from policy_cases import Case, cases
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.parse import parse_policy

TABLE = cases()


def test_the_table_is_worth_its_name() -> None:
    good = sum(case.error is None for case in TABLE)
    assert good >= 120
    assert len(TABLE) - good >= 120


@pytest.mark.parametrize("case", [c for c in TABLE if c.error is None], ids=lambda case: case.name)
def test_good(case: Case) -> None:
    parse_policy(case.document)


@pytest.mark.parametrize("case", [c for c in TABLE if c.error is not None], ids=lambda case: case.name)
def test_bad(case: Case) -> None:
    with pytest.raises(InvalidPolicy) as raised:
        parse_policy(case.document)

    assert case.error is not None
    paths = [error.path.replace("[app]", ".app") for error in raised.value.errors]
    assert any(path == case.error or path.startswith(f"{case.error}[") for path in paths), raised.value
