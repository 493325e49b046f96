"""The sidecar's settings: one frozen tree from flags and environment, with every error told at once.

What a CachePolicy says is not here: policies change while the process runs, these settings do not.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit


class ConfigError(Exception):
    """Flags or environment are unusable; `errors` has every reason."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(errors))


@dataclass(frozen=True, slots=True)
class Address:
    host: str | None
    """None: all addresses of both families."""
    port: int

    def __str__(self) -> str:
        host = "*" if self.host is None else f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Bind:
    """One listening address and the origin behind it, under one policy."""

    policy: str
    """`namespace/name`."""
    listen: Address
    origin: Address

    @property
    def authority(self) -> str | None:
        """What the origin is to see as Host: its own name where it has one (client-side), what the client sent where
        it is the app in this pod, which is known by its address."""
        try:
            ipaddress.ip_address(self.origin.host or "")
        except ValueError:
            return str(self.origin).removesuffix(":80")
        return None


@dataclass(frozen=True, slots=True)
class Pod:
    """Who this process is; outside Kubernetes the host's name stands for the pod's."""

    name: str
    namespace: str
    uid: str
    real: bool = False
    """Whether there is a pod, and so may be others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    binds: tuple[Bind, ...]
    admin: Address
    data_dir: Path
    """Holds the journal and the id of this process for its successor; survives the container, not always the pod."""
    policy_files: tuple[Path, ...] = ()
    """CachePolicy manifests, read at start and whenever they change."""
    policies_dir: Path | None = None
    """Folder of bundles, `<policy>.json` each, as the operator mounts it."""
    redis_url: str | None = None
    pod: Pod = field(default_factory=lambda: Pod(socket.gethostname(), "default", socket.gethostname()))
    drain_s: float = 25.0
    """How long a stop waits for requests in flight and pending writes; below the usual grace period of 30 s."""
    unattended: bool = False
    """No controller watches: lost publishers are fenced by time alone, and the promise R2 is not claimed."""
    log_format: str = "human"


def parse_address(text: str) -> Address:
    """`*:15080`, `127.0.0.1:80`, `[::1]:80`; the last colon separates the port, so a bare IPv6 address works too.

    Raises ValueError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write HOST:PORT, or *:PORT for all addresses")
    host = host.removeprefix("[").removesuffix("]")
    return Address(None if host in ("*", "") else host, int(port))


def parse_origin(text: str) -> Address:
    """`http://HOST[:PORT]`, where HOST may be an IPv6 address without brackets if a port follows. Raises ValueError."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme != "http":
        raise ValueError(f"{text!r} is no origin: write http://HOST:PORT")
    rest = rest.rstrip("/")
    if not rest or any(c in rest for c in "/?#@ "):
        raise ValueError(f"{text!r} is no origin: just http://HOST:PORT, without a path")
    if ":" not in rest or rest.endswith("]"):
        rest += ":80"
    address = parse_address(rest)
    if address.host is None:
        raise ValueError(f"{text!r} is no origin: it needs a host")
    return address


def parse_bind(text: str, namespace: str) -> Bind:
    """`POLICY=LISTEN,ORIGIN`, where POLICY is a name or `namespace/name`. Raises ValueError."""
    policy, equals, rest = text.partition("=")
    listen, comma, origin = rest.partition(",")
    if not (policy and equals and comma):
        raise ValueError(
            f"{text!r} is no bind: write POLICY=LISTEN,ORIGIN, as in products=*:15080,http://10.0.0.7:8080"
        )
    return Bind(policy if "/" in policy else f"{namespace}/{policy}", parse_address(listen), parse_origin(origin))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="pulsecache-sidecar", description="A cache beside a service, that knows how stale its answers may be."
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    run = top.add_subparsers(dest="command", metavar="COMMAND").add_parser(
        "run",
        help="run the sidecar",
        description="Runs the sidecar until SIGTERM. In a pod the operator writes this command line; by hand: "
        "pulsecache-sidecar run --policy policy.yaml --listen 127.0.0.1:8081 --origin http://127.0.0.1:8080 "
        "--admin 127.0.0.1:15090 --data /tmp/pulsecache",
    )
    run.add_argument("--policy", action="append", default=[], metavar="FILE", help="CachePolicy manifest (repeatable)")
    run.add_argument("--policies", metavar="DIR", help="folder of bundles, as the operator mounts it")
    run.add_argument("--listen", metavar="ADDR", help="where to listen, for the one policy given by --policy")
    run.add_argument("--origin", metavar="URL", help="the service behind it, http://HOST:PORT")
    run.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="POLICY=LISTEN,ORIGIN",
        help="instead of --listen and --origin, for more than one policy (repeatable)",
    )
    run.add_argument("--admin", default="127.0.0.1:15090", metavar="ADDR", help="metrics and probes (%(default)s)")
    run.add_argument("--data", required=True, metavar="DIR", help="folder of the journal")
    run.add_argument("--redis", metavar="URL", help="redis://[USER:PASSWORD@]HOST[:PORT] (or PULSECACHE_REDIS_URL)")
    run.add_argument("--drain", type=float, default=25.0, metavar="SECONDS", help="time to stop in (%(default)s)")
    run.add_argument(
        "--unattended",
        action="store_true",
        help="no controller watches this dataset: fence lost publishers by time (the bound is then no promise)",
    )
    run.add_argument("--log-format", choices=("human", "json"), help="default: human, in a pod json")
    return top


def load(arguments: argparse.Namespace, environment: Mapping[str, str], policy_keys: Sequence[str]) -> Config:
    """Settings from parsed flags and the environment. `policy_keys`: of the policies in the --policy files, in order.

    Raises ConfigError with everything that is wrong.
    """
    errors: list[str] = []
    namespace = environment.get("PULSECACHE_POD_NAMESPACE", "default")
    name = environment.get("PULSECACHE_POD_NAME") or socket.gethostname()
    uid = environment.get("PULSECACHE_POD_UID") or None
    binds: list[Bind] = []
    for text in arguments.bind:
        if bind := _collect(errors, partial(parse_bind, text, namespace)):
            binds.append(bind)
    if arguments.listen or arguments.origin:
        if arguments.bind:
            errors.append("--listen and --origin are for one policy: with --bind leave them out")
        elif not (arguments.listen and arguments.origin):
            errors.append("--listen and --origin belong together")
        elif len(policy_keys) != 1:
            errors.append(f"--listen and --origin need exactly one --policy, not {len(policy_keys)}: use --bind")
        else:
            listen = _collect(errors, partial(parse_address, arguments.listen))
            origin = _collect(errors, partial(parse_origin, arguments.origin))
            if listen and origin:
                binds.append(Bind(policy_keys[0], listen, origin))
    elif not arguments.bind:
        errors.append("nothing to do: give --listen and --origin, or --bind")
    taken: dict[str, str] = {}
    for bind in binds:
        if (other := taken.setdefault(str(bind.listen), bind.policy)) != bind.policy:
            errors.append(f"{bind.listen} is bound twice: by {other} and by {bind.policy}")
    admin = _collect(errors, partial(parse_address, arguments.admin))
    redis_url = arguments.redis or environment.get("PULSECACHE_REDIS_URL") or None
    if redis_url is not None and urlsplit(redis_url).scheme not in ("redis", "rediss"):
        errors.append("the Redis URL must begin with redis:// or rediss://")
    if arguments.drain < 0:
        errors.append("--drain must not be negative")
    policies_dir = Path(arguments.policies) if arguments.policies else None
    if errors or admin is None:
        raise ConfigError(errors)
    return Config(
        binds=tuple(binds),
        admin=admin,
        data_dir=Path(arguments.data),
        policy_files=tuple(Path(file) for file in arguments.policy),
        policies_dir=policies_dir,
        redis_url=redis_url,
        pod=Pod(name, namespace, uid or name, real=uid is not None),
        drain_s=arguments.drain,
        unattended=arguments.unattended,
        log_format=arguments.log_format or ("json" if "KUBERNETES_SERVICE_HOST" in environment else "human"),
    )


T = TypeVar("T")


def _collect(errors: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ValueError as error:
        errors.append(str(error))
        return None
