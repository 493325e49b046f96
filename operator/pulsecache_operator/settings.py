"""What the operator is told at its start: flags and environment, as one frozen value.

A flag wins over the environment, an empty value counts as not given, and every error is collected, so that a person
corrects a manifest once. The table of names is in docs/architecture.md. Nothing here talks to the cluster.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pulsecache_operator import __version__

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its own namespace."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?")


class Command(StrEnum):
    CONTROLLER = "controller"
    INJECTOR = "injector"


class LogFormat(StrEnum):
    JSON = "json"
    HUMAN = "human"


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. `host` has no brackets, also for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    namespace: str
    """Where the operator lives: its Secret and its Lease are there."""
    log_format: LogFormat
    health_listen: Listen
    tls_secret: str
    webhook_listen: Listen
    sidecar_image: str
    sidecar_image_pull_policy: PullPolicy
    sidecar_resources: Mapping[str, Mapping[str, str]]
    """`requests` and `limits` of the sidecar, as Kubernetes writes them."""
    redis_secret: str
    webhook_configuration: str
    webhook_service: str
    redis_url: str | None = field(repr=False)
    """The controller's own access; None where there is no Redis. Holds a password: never printed."""
    sidecar_redis_url: str | None = field(repr=False)
    lease: str


class InvalidSettings(Exception):
    """The program cannot start with what it was told; `errors` has every reason."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


# --- one value -------------------------------------------------------------------------------------------------


def _name(text: str) -> str:
    if not _DNS_SUBDOMAIN.fullmatch(text):
        raise ValueError("is not a Kubernetes name (lower-case letters, digits, '-' and '.')")
    return text


def _label(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError("is not a Kubernetes name (at most 63 lower-case letters, digits and '-')")
    return text


def _listen(text: str) -> Listen:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError("is not HOST:PORT (for example 0.0.0.0:8080, or [::]:8080)")
    return Listen(host, int(port))


def _enum(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"is none of {', '.join(kind)}") from None

    return parse


def _image(text: str) -> str:
    if any(c.isspace() for c in text):
        raise ValueError("is not an image reference: it contains white space")
    return text


def _redis_url(text: str) -> str:
    problem = "is not a Redis URL (redis://, rediss:// or unix://)"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    match parts.scheme:
        case "redis" | "rediss" if parts.hostname and port != 0:
            return text
        case "unix" if parts.path:
            return text
    raise ValueError(problem)


def _resources(text: str) -> Mapping[str, Mapping[str, str]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(document, dict) or not set(document) <= {"requests", "limits"}:
        raise ValueError('is not a JSON object with "requests" and "limits"')
    for section, quantities in document.items():
        if not isinstance(quantities, dict):
            raise ValueError(f'has no JSON object in "{section}"')
        for resource, quantity in quantities.items():
            if not isinstance(quantity, str) or not _QUANTITY.fullmatch(quantity):
                raise ValueError(f'has no quantity, in a string, in "{section}.{resource}"')
    return document


# --- the table -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Setting:
    name: str
    parse: Callable[[str], Any]
    help: str
    default: str | None = None
    required: bool = False
    of: frozenset[Command] = frozenset(Command)

    @property
    def env(self) -> str:
        return f"PULSECACHE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


_CONTROLLER = frozenset({Command.CONTROLLER})
_INJECTOR = frozenset({Command.INJECTOR})

_TABLE = (
    _Setting("namespace", _label, "namespace of the operator (default: the pod's own)", required=True),
    _Setting("log_format", _enum(LogFormat), "json or human", "json"),
    _Setting("health_listen", _listen, "address of /livez, /readyz and /metrics", "0.0.0.0:8080"),
    _Setting("tls_secret", _name, "Secret with the webhook's certificates", "pulsecache-webhook-tls"),
    _Setting("webhook_listen", _listen, "address of POST /inject", "0.0.0.0:8443", of=_INJECTOR),
    _Setting("sidecar_image", _image, "image of the sidecar", required=True),
    _Setting(
        "sidecar_image_pull_policy", _enum(PullPolicy), "Always, IfNotPresent or Never", "IfNotPresent", of=_INJECTOR
    ),
    _Setting(
        "sidecar_resources",
        _resources,
        "resources of the sidecar, JSON",
        '{"requests":{"cpu":"50m","memory":"96Mi"},"limits":{"memory":"256Mi"}}',
        of=_INJECTOR,
    ),
    _Setting("redis_secret", _name, "Secret with the Redis URL in the workloads' namespaces", "pulsecache-redis"),
    _Setting(
        "webhook_configuration", _name, "MutatingWebhookConfiguration to keep", "apulsecache-injector", of=_CONTROLLER
    ),
    _Setting("webhook_service", _label, "Service in front of the injector", "pulsecache-injector", of=_CONTROLLER),
    _Setting("redis_url", _redis_url, "Redis as the controller reaches it (default: no Redis)", of=_CONTROLLER),
    _Setting("sidecar_redis_url", _redis_url, "Redis as sidecars reach it (default: no Redis)", of=_CONTROLLER),
    _Setting("lease", _name, "Lease of the writer role", "pulsecache-controller", of=_CONTROLLER),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidSettings([message])


def _arguments() -> argparse.ArgumentParser:
    parser = _Parser(prog="pulsecache-operator", description="The operator of Pulsecache.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pulsecache-operator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="controller|injector", parser_class=_Parser)
    texts = {
        Command.CONTROLLER: "compiles policies, rolls workloads, keeps certificates, writes status",
        Command.INJECTOR: "puts the sidecar into pods: the mutating webhook",
    }
    for command, text in texts.items():
        sub = commands.add_parser(command, help=text, description=f"{command}: {text}.", allow_abbrev=False)
        for setting in _TABLE:
            # Each program takes every flag, so that both deployments may share one list of settings.
            default = f" (default: {setting.default})" if setting.default else ""
            sub.add_argument(
                setting.flag,
                metavar="VALUE",
                help=f"{setting.help}{default} [{setting.env}]".replace("%", "%%"),
                default=None,
            )
    return parser


def parse(
    argv: Sequence[str], environ: Mapping[str, str], *, namespace_file: Path = NAMESPACE_FILE
) -> tuple[Command, Settings]:
    """Reads the command and its settings. Raises InvalidSettings; exits for --help and --version."""
    arguments, unknown = _arguments().parse_known_args(argv)
    command = Command(arguments.command)
    errors = [f"unknown argument: {word}" for word in unknown]
    values: dict[str, Any] = {}
    for setting in _TABLE:
        source, text = setting.flag, getattr(arguments, setting.name)
        if not text:
            source, text = setting.env, environ.get(setting.env)
        if not text and setting.name == "namespace":
            source, text = str(namespace_file), _read(namespace_file)
        if not text:
            source, text = "default", setting.default
        if not text:
            values[setting.name] = None
            if setting.required and command in setting.of:
                errors.append(f"{setting.env} (or {setting.flag}) is missing: {setting.help}")
            continue
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            secret = setting.name.endswith("redis_url")
            errors.append(f"{source}{'' if secret else f' {text!r}'} {error}")
    if errors:
        raise InvalidSettings(errors)
    return command, Settings(**values)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
