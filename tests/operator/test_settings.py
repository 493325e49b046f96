"""The operator's settings: a flag wins over the environment, and every error is told at once."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pulsecache_operator import logs
from pulsecache_operator.settings import Command, InvalidSettings, Listen, LogFormat, PullPolicy, Settings, parse

ENOUGH = {"PULSECACHE_NAMESPACE": "pulsecache", "PULSECACHE_SIDECAR_IMAGE": "example/sidecar:1"}


def controller(*flags: str, **environ: str) -> Settings:
    return parse(["controller", *flags], ENOUGH | environ)[1]


def errors_of(argv: list[str], environ: dict[str, str], namespace_file: Path = Path("/nonexistent")) -> str:
    with pytest.raises(InvalidSettings) as caught:
        parse(argv, environ, namespace_file=namespace_file)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    command, settings = parse(["injector"], ENOUGH)
    assert command is Command.INJECTOR
    assert settings == Settings(
        namespace="pulsecache",
        log_format=LogFormat.JSON,
        health_listen=Listen("0.0.0.0", 8080),
        tls_secret="pulsecache-webhook-tls",
        webhook_listen=Listen("0.0.0.0", 8443),
        sidecar_image="example/sidecar:1",
        sidecar_image_pull_policy=PullPolicy.IF_NOT_PRESENT,
        sidecar_resources={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        redis_secret="pulsecache-redis",
        webhook_configuration="apulsecache-injector",
        webhook_service="pulsecache-injector",
        redis_url=None,
        sidecar_redis_url=None,
        lease="pulsecache-controller",
    )


def test_every_setting_is_in_the_documentation() -> None:
    table = Path(__file__).parents[2].joinpath("docs", "architecture.md").read_text(encoding="utf-8")
    for name in Settings.__slots__:
        assert f"`PULSECACHE_{name.upper()}`" in table


def test_a_flag_wins_over_the_environment() -> None:
    assert controller("--lease=mine", PULSECACHE_LEASE="theirs").lease == "mine"
    assert controller(PULSECACHE_LEASE="theirs").lease == "theirs"


def test_an_empty_value_counts_as_not_given() -> None:
    assert controller("--redis-url=", PULSECACHE_REDIS_URL="").redis_url is None
    assert controller("--lease=", PULSECACHE_LEASE="theirs").lease == "theirs"


def test_a_pod_knows_its_own_namespace(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("caches\n", encoding="ascii")
    environ = {"PULSECACHE_SIDECAR_IMAGE": "i"}
    assert parse(["controller"], environ, namespace_file=file)[1].namespace == "caches"
    environ["PULSECACHE_NAMESPACE"] = "elsewhere"
    assert parse(["controller"], environ, namespace_file=file)[1].namespace == "elsewhere"


def test_listening_on_ipv6() -> None:
    listen = controller("--health-listen=[::]:9000").health_listen
    assert listen == Listen("::", 9000)
    assert str(listen) == "[::]:9000"


def test_every_error_is_told_at_once() -> None:
    told = errors_of(
        ["controller", "--bogus", "--health-listen=8080"],
        {
            "PULSECACHE_LOG_FORMAT": "xml",
            "PULSECACHE_SIDECAR_RESOURCES": "{",
            "PULSECACHE_REDIS_URL": "http://:hunter2@r",
        },
    )
    assert told.splitlines() == [
        "unknown argument: --bogus",
        "PULSECACHE_NAMESPACE (or --namespace) is missing: namespace of the operator (default: the pod's own)",
        "PULSECACHE_LOG_FORMAT 'xml' is none of json, human",
        "--health-listen '8080' is not HOST:PORT (for example 0.0.0.0:8080, or [::]:8080)",
        "PULSECACHE_SIDECAR_IMAGE (or --sidecar-image) is missing: image of the sidecar",
        (
            "PULSECACHE_SIDECAR_RESOURCES '{' is not JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)"
        ),
        "PULSECACHE_REDIS_URL is not a Redis URL (redis://, rediss:// or unix://)",
    ]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--namespace=No_Name", "is not a Kubernetes name"),
        ("--lease=a/b", "is not a Kubernetes name"),
        ("--health-listen=:8080", "is not HOST:PORT"),
        ("--health-listen=0.0.0.0:99999", "is not HOST:PORT"),
        ("--sidecar-image=two words", "white space"),
        ("--redis-url=redis://host:port", "is not a Redis URL"),
        ("--redis-url=redis://", "is not a Redis URL"),
        ("--sidecar-resources=[]", 'is not a JSON object with "requests" and "limits"'),
        ('--sidecar-resources={"limit":{}}', 'is not a JSON object with "requests" and "limits"'),
        ('--sidecar-resources={"limits":{"cpu":1}}', 'has no quantity, in a string, in "limits.cpu"'),
        ('--sidecar-resources={"limits":{"cpu":"lots"}}', 'has no quantity, in a string, in "limits.cpu"'),
        ('--sidecar-resources={"limits":"all"}', 'has no JSON object in "limits"'),
    ],
)
def test_a_bad_value_is_told_with_its_flag(flag: str, reason: str) -> None:
    told = errors_of(["controller", flag], ENOUGH)
    assert told.startswith(flag.split("=")[0])
    assert reason in told


def test_a_wrong_command_is_an_error_like_others() -> None:
    assert "controller" in errors_of(["cook"], ENOUGH)
    assert "required" in errors_of([], ENOUGH)


def test_passwords_are_never_shown() -> None:
    settings = controller("--redis-url=redis://:hunter2@r", PULSECACHE_SIDECAR_REDIS_URL="redis://u:hunter2@r:6379/0")
    assert settings.redis_url == "redis://:hunter2@r"
    assert "hunter2" not in repr(settings)


def test_json_logs_are_one_object_a_line() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure(LogFormat.JSON, stream=stream)
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger("pulsecache").exception("went %s", "wrong", extra={"policy": "shop/products"})
    finally:
        root.handlers[:], root.level = before, level
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "went wrong"
    assert entry["policy"] == "shop/products"
    assert entry["level"] == "error"
    assert entry["exception"].endswith("ValueError: two\nlines")


def program(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pulsecache_operator", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def test_the_program_says_what_is_wrong_and_ends() -> None:
    done = program("controller", "--bogus")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "pulsecache-operator: unknown argument: --bogus"
    assert [line.split()[1] for line in lines[1:]] == ["PULSECACHE_NAMESPACE", "PULSECACHE_SIDECAR_IMAGE"]


def test_the_program_says_its_version_and_its_settings() -> None:
    assert program("--version").stdout.startswith("pulsecache-operator ")
    told = program("injector", "--help").stdout
    for name in Settings.__slots__:
        assert f"[PULSECACHE_{name.upper()}]" in "".join(told.split())


def test_without_a_cluster_it_ends_without_a_traceback() -> None:
    done = program("controller", **ENOUGH)
    assert done.returncode == 1
    assert "no cluster" in done.stderr
    assert "Traceback" not in done.stderr
