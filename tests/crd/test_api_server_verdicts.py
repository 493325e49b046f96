"""The schema's side of the table, on a real API server with fieldValidation=Strict; and what they must agree on.

The API server skips CEL where the schema fails already, so verdicts are compared, not lists of errors.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from apiserver import ApiServer, kubectl
from policy_cases import Case, cases
from pulsecache_policy.parse import parse_policy

pytestmark = pytest.mark.api

CRD = Path(__file__).parents[2] / "crds" / "cachepolicies.pulsecache.dev.yaml"
POLICIES = "/apis/pulsecache.dev/v1alpha1/namespaces/default/cachepolicies"
TABLE = cases()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]

    @property
    def fields(self) -> list[str]:
        """Where the server sees what is wrong, as far as it says."""
        details = self.body.get("details") or {}
        causes = [str(cause.get("field")) for cause in details.get("causes") or ()]
        return causes + re.findall(r'unknown field "([^"]+)"', self.body.get("message", ""))


class Policies:
    """Creates policies without keeping them, over one connection."""

    def __init__(self, server: ApiServer) -> None:
        context = ssl.create_default_context(cafile=str(server.ca))
        context.load_cert_chain(server.certificate, server.key)
        self._connection = http.client.HTTPSConnection(urlsplit(server.url).netloc, context=context, timeout=30)

    def create(self, document: object) -> Answer:
        self._connection.request(
            "POST",
            f"{POLICIES}?dryRun=All&fieldValidation=Strict",
            json.dumps(document),
            {"Content-Type": "application/json"},
        )
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read()))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def policies(apiserver: ApiServer) -> Iterator[Policies]:
    applied = kubectl(apiserver, "apply", "--server-side", "-f", str(CRD))
    assert applied.returncode == 0, applied.stderr
    established = kubectl(apiserver, "wait", "--for=condition=Established", "crd/cachepolicies.pulsecache.dev")
    assert established.returncode == 0, established.stderr
    client = Policies(apiserver)
    yield client
    client.close()


@pytest.mark.parametrize("case", [c for c in TABLE if c.error is None], ids=lambda case: case.name)
def test_good(case: Case, policies: Policies) -> None:
    answer = policies.create(case.document)

    assert answer.status == 201, answer.body["message"]
    # the defaults of the schema are those of the parser
    stored = replace(parse_policy(answer.body), generation=0, uid="", created="")
    assert stored == parse_policy(case.document)


@pytest.mark.parametrize("case", [c for c in TABLE if c.error is not None], ids=lambda case: case.name)
def test_bad(case: Case, policies: Policies) -> None:
    answer = policies.create(case.document)

    assert answer.status in (400, 422), answer.body
    expected = case.server or case.error
    assert expected is not None
    # a rule that looks at all elements of a list names the list
    places = (expected, re.sub(r"\[\d+\]$", "", expected))
    assert any(field in places or field.startswith(f"{expected}[") for field in answer.fields), answer.body
