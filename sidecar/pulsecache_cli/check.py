"""`pulsecache check`: what is wrong with manifests, each error and warning with file, line and path.

The verdict is the API server's, without one. Documents that are no CachePolicy are told of and left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pulsecache_cli.errors import CommandFailed
from pulsecache_cli.output import plain, print_json
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import API_GROUP, KIND
from pulsecache_policy.parse import parse_policy, warnings


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str
    """`error`, `warning`, or `note`: a document that was not looked at."""
    file: str
    line: int
    path: str
    reason: str

    def __str__(self) -> str:
        kind = "" if self.severity == "error" else f"{self.severity}: "
        path = f"{self.path}: " if self.path else ""
        return plain(f"{self.file}:{self.line}: {kind}{path}{self.reason}")


@dataclass(frozen=True, slots=True)
class Report:
    policies: int
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)


def run(files: Sequence[str], *, namespace: str, as_json: bool) -> int:
    report = check(files, namespace=namespace)
    if as_json:
        print_json({"policies": report.policies, "findings": [asdict(finding) for finding in report.findings]})
    else:
        for finding in report.findings:
            print(finding)
        print(
            f"{_counted(report.policies, 'policy', 'policies')}: {_counted(report.count('error'), 'error', 'errors')},"
            f" {_counted(report.count('warning'), 'warning', 'warnings')}",
            file=sys.stderr,
        )
    return 1 if report.count("error") else 0


def check(files: Sequence[str], *, namespace: str) -> Report:
    """`-` is stdin. `namespace` is that of documents that name none."""
    policies = 0
    findings: list[Finding] = []
    for file in files:
        text = _read(file)
        if isinstance(text, Finding):
            findings.append(text)
            continue
        for is_policy, found in _check_text(file, text, namespace):
            policies += is_policy
            findings.extend(found)
    return Report(policies, tuple(findings))


def _check_text(file: str, text: str, namespace: str) -> Iterator[tuple[bool, list[Finding]]]:
    """For each document: whether it is meant as a policy, and what was found."""
    try:
        from pulsecache_cli.manifests import BadYaml, documents
    except ModuleNotFoundError as error:
        raise CommandFailed("reading YAML takes PyYAML: pip install 'pulsecache[cli]'") from error

    def finding(severity: str, line: int, path: str, reason: str) -> Finding:
        return Finding(severity, "<stdin>" if file == "-" else file, line, path, reason)

    try:
        for document in documents(text):
            kind = _foreign(document.value)
            if kind is not None:
                yield False, [finding("note", document.line(""), "", f"{kind} is no {KIND}: skipped")]
                continue
            try:
                policy = parse_policy(document.value, default_namespace=namespace)
            except InvalidPolicy as invalid:
                severity, told = "error", invalid.errors
            else:
                severity, told = "warning", warnings(policy)
            yield True, [finding(severity, document.line(one.path), one.path, one.reason) for one in told]
    except BadYaml as bad:
        yield False, [finding("error", bad.line, "", bad.reason)]


def _foreign(value: object) -> str | None:
    """What a document is that is not meant for us."""
    if not isinstance(value, dict):
        return "this document"
    version, kind = str(value.get("apiVersion", "")), str(value.get("kind", ""))
    if kind == KIND or version.startswith(f"{API_GROUP}/"):
        return None
    return f"{version} {kind}".strip() or "this document"


def _read(file: str) -> str | Finding:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        return Finding("error", file, 0, "", f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        return Finding("error", file, 0, "", f"is not UTF-8: {error.reason} at byte {error.start}")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
