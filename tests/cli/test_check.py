"""`pulsecache check`: every error with file, line and path; the exit code says whether there was one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from pulsecache_cli.__main__ import main

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "policies").glob("*.yaml"))

GOOD = """\
apiVersion: pulsecache.dev/v1alpha1
kind: CachePolicy
metadata:
  name: products
spec:
  targetRef:
    name: products
  reads:
  - name: product
    match:
      path: /products/{id}
"""

BAD = """\
# a comment
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: pulsecache.dev/v1alpha1
kind: CachePolicy
metadata:
  name: products
spec:
  targetRef:
    name: products
    port: 80
  mode: Off
  consumer:
    selector:
      matchLabels:
        app.kubernetes.io/name: a b
    upstream: http://x
    env: [A]
  reads:
  - name: first
    match: {path: /a}
  - name: first
    match:
      path: a//b
    ttl: {source: Policy}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.yaml").write_text(GOOD)
    assert main(["check", "good.yaml"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "1 policy: 0 errors, 0 warnings\n"


def test_every_error_has_its_line_and_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(BAD)
    assert main(["check", "bad.yaml"]) == 1
    told = capsys.readouterr()
    places = [line.split(": ")[:2] for line in told.out.splitlines()]
    assert sorted(places) == sorted(
        [
            ["bad.yaml:2", "note"],
            ["bad.yaml:10", "spec"],
            ["bad.yaml:13", "spec.targetRef.port"],
            ["bad.yaml:14", "spec.mode"],
            ["bad.yaml:18", "spec.consumer.selector.matchLabels[app.kubernetes.io/name]"],
            ["bad.yaml:24", "spec.reads[1].name"],
            ["bad.yaml:26", "spec.reads[1].match.path"],
            ["bad.yaml:27", "spec.reads[1].ttl.duration"],
        ]
    )
    assert told.err == "1 policy: 7 errors, 0 warnings\n"


def test_a_document_of_another_kind_is_told_of_and_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other.yaml").write_text("apiVersion: v1\nkind: Secret\n---\n---\njust text\n---\n" + GOOD)
    assert main(["check", "other.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "other.yaml:1: note: v1 Secret is no CachePolicy: skipped",
        "other.yaml:5: note: this document is no CachePolicy: skipped",
    ]


def test_a_misspelled_kind_or_version_is_not_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "kind.yaml").write_text(GOOD.replace("CachePolicy", "CachePolcy"))
    (folder / "version.yaml").write_text(GOOD.replace("pulsecache.dev/v1alpha1", "v1"))
    assert main(["check", "kind.yaml", "version.yaml"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "kind.yaml:2: kind: must be CachePolicy",
        "version.yaml:1: apiVersion: must be pulsecache.dev/v1alpha1",
    ]


def test_warnings_do_not_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "warn.yaml").write_text(GOOD + "    ttl: {source: Policy, duration: 1h}\n")
    assert main(["check", "warn.yaml"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("warn.yaml:12: warning: spec.reads[0].ttl.duration: 3600s is above")
    assert told.err == "1 policy: 0 errors, 1 warning\n"


def test_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD.replace("products/{id}", "products/{id")))
    assert main(["check", "-"]) == 1
    assert capsys.readouterr().out.startswith("<stdin>:11: spec.reads[0].match.path: ")


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(GOOD + "  surprise: 1\n")
    assert main(["check", "bad.yaml", "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "policies": 1,
        "findings": [
            {
                "severity": "error",
                "file": "bad.yaml",
                "line": 12,
                "path": "spec.surprise",
                "reason": "is no field of a CachePolicy",
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: [1\n", 2, "is no YAML"),
        ("a: 1\nb: {\n", 3, "is no YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, 'the field "a" is there twice'),
        ("a: {{ .Values.x }}\n", 1, "is no YAML"),
        ("a: !!python/object:os.system {}\n", 1, "is no YAML"),
        ("a: *nowhere\n", 1, "is no YAML"),
        ("\tx: 1\n", 1, "is no YAML"),
        ("a: \x07\n", 1, "is no YAML"),
        ("[" * 100_000, 1, "is no YAML"),
        ("a: " + "9" * 10_000 + "\n", 1, "is no YAML"),
    ],
)
def test_what_is_no_yaml(folder: Path, capsys: pytest.CaptureFixture[str], text: str, line: int, reason: str) -> None:
    (folder / "bad.yaml").write_text(text)
    assert main(["check", "bad.yaml"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"bad.yaml:{line}: "), out
    assert reason in out
    assert out.count("\n") == 1


def test_what_stands_before_bad_yaml_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(GOOD + "  mode: Off\n---\na: [\n")
    assert main(["check", "bad.yaml"]) == 1
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["spec.mode", "is no YAML"]


def test_aliases_do_not_multiply_the_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (folder / "laughs.yaml").write_text("\n".join([GOOD, *lines]))
    assert main(["check", "laughs.yaml"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 30


def test_values_are_those_of_kubernetes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dates and 1:30 are text there."""
    text = GOOD.replace("metadata:\n", "metadata:\n  creationTimestamp: 2026-01-01T00:00:00Z\n").replace(
        "name: products\n  reads", "name: 1:30\n  reads"
    )
    (folder / "dates.yaml").write_text(text)
    assert main(["check", "dates.yaml"]) == 1
    assert capsys.readouterr().out.startswith('dates.yaml:8: spec.targetRef.name: "1:30" must be the name of a Service')


def test_a_file_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "latin.yaml").write_bytes(b"a: \xe9")
    assert main(["check", "missing.yaml", "latin.yaml", "."]) == 1
    out = capsys.readouterr().out
    assert "missing.yaml:0: cannot be read: No such file or directory" in out
    assert "latin.yaml:0: is not UTF-8" in out
    assert ".:0: cannot be read: Is a directory" in out


def test_a_document_without_a_namespace_gets_the_given_one(folder: Path) -> None:
    (folder / "good.yaml").write_text(GOOD)
    assert main(["check", "good.yaml", "--namespace", "shop"]) == 0


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.yaml").write_text(GOOD + '  mode: "\\e[31mred"\n')
    assert main(["check", "bad.yaml"]) == 1
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_good(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["check"], ["chekc"], ["purge", "shop/products"], ["retry", "x"]])
def test_wrong_arguments_are_told_and_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: pulsecache" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for command in ("check", "status", "staleness", "journal", "dead-letters", "retry", "drop", "purge"):
        assert f"\n    {command}" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("pulsecache ")
