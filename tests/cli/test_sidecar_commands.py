"""The commands that ask one sidecar, against its real admin listener."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pulsecache_cli.__main__ import main
from pulsecache_sidecar.adapters.admin import Admin, Endpoints
from wire import listening


class World:
    """What the endpoints show, and what they were asked to do."""

    def __init__(self) -> None:
        self.url = ""
        self.purged: list[tuple[str, str]] = []
        self.letters: dict[int, dict[str, Any]] = {
            7: {
                "id": 7,
                "policy": "shop/products",
                "rule": "view",
                "method": "POST",
                "target": "/products/\x1b[31m/views",
                "status": 422,
                "attempts": 2,
                "accepted": "2026-01-01T00:00:00Z",
                "detail": "no such product",
            }
        }
        self.retried: list[int] = []

    def endpoints(self) -> Endpoints:
        return Endpoints(
            live=lambda: None,
            ready=lambda: None,
            metrics=lambda: b"",
            staleness=lambda: {
                "datasets": [
                    {
                        "dataset": "shop/products",
                        "state": "unconfirmed",
                        "since": "2026-01-01T00:00:00Z",
                        "bound_s": 4.2,
                        "limit_s": 5,
                        "heartbeat_age_s": None,
                        "open_writes": 1,
                        "lost_publishers": ["pod-1.abc"],
                    }
                ]
            },
            policies=list,
            journal=lambda: [
                {
                    "policy": "shop/products",
                    "pending": 3,
                    "oldest_age_s": 12.5,
                    "dead_letters": 1,
                    "waits_for": "connection refused",
                }
            ],
            dead_letters=self._shown,
            retry=self._retry,
            drop=self._drop,
            purge=self._purge,
        )

    async def _shown(self) -> list[dict[str, Any]]:
        return list(self.letters.values())

    async def _retry(self, letter: int) -> bool:
        self.retried.append(letter)
        return self.letters.pop(letter, None) is not None

    async def _drop(self, letter: int) -> bool:
        return self.letters.pop(letter, None) is not None

    async def _purge(self, dataset: str, tag: str) -> bool:
        self.purged.append((dataset, tag))
        return dataset == "shop/products"

    async def run(self, *arguments: str) -> int:
        return await asyncio.to_thread(main, [*arguments, "--admin", self.url])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    shown = World()
    async with listening(Admin(shown.endpoints())) as running:
        shown.url = f"http://127.0.0.1:{running.port}"
        yield shown


async def test_staleness(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await world.run("staleness") == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["DATASET", "STATE", "SINCE"]
    assert line.split() == ["shop/products", "unconfirmed", "2026-01-01T00:00:00Z", "4.2s", "5s", "-", "1", "pod-1.abc"]


async def test_journal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await world.run("journal") == 0
    assert capsys.readouterr().out.splitlines()[1].split(maxsplit=4) == [
        "shop/products",
        "3",
        "12.5s",
        "1",
        "connection refused",
    ]


async def test_dead_letters_cannot_command_the_terminal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await world.run("dead-letters") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[1].startswith("7    shop/products   view   POST     /products/?[31m/views   422")


@pytest.mark.parametrize("command", ["staleness", "journal", "dead-letters"])
async def test_json_is_what_the_sidecar_said(world: World, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert await world.run(command, "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)


async def test_retry_and_drop(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.letters[8] = {"id": 8}
    assert await world.run("retry", "7") == 0
    assert await world.run("drop", "8") == 0
    assert world.retried == [7]
    assert world.letters == {}
    assert await world.run("drop", "8") == 1
    assert capsys.readouterr().err == "pulsecache: Not found: no dead letter has the id 8\n"


@pytest.mark.parametrize(
    ("what", "tag"),
    [("product:42", "product:42"), ("/u/%61%40b;v=1?x=1", "/u/a@b"), ("--all", "*")],
)
async def test_purge(world: World, what: str, tag: str) -> None:
    assert await world.run("purge", "shop/products", what) == 0
    assert world.purged == [("shop/products", tag)]


async def test_purge_says_what_it_could_not_do(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await world.run("purge", "shop/other", "x") == 1
    assert "no policy here has the dataset shop/other" in capsys.readouterr().err
    assert await world.run("purge", "shop/products", "/a//b") == 1
    assert "/a//b is no path that can be cached" in capsys.readouterr().err
    assert world.purged == [("shop/other", "x")]


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert main(["journal", "--admin", f"http://127.0.0.1:{port}"]) == 1
    told = capsys.readouterr().err
    assert f"no sidecar answers at http://127.0.0.1:{port}: " in told
    assert "--pod NAMESPACE/NAME" in told


@pytest.mark.parametrize("url", ["127.0.0.1:15090", "https://x", "http://x/metrics", "http://x:99999", "http://"])
def test_an_address_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "--admin", url]) == 1
    assert "is no address of an admin listener" in capsys.readouterr().err


# --- through kubectl ------------------------------------------------------------------------------------------------


def put_kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A program called kubectl that writes its arguments down: port-forward wants a kubelet, which only e2e has."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/called\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "called"


async def test_a_pod_is_reached_by_port_forward(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = world.url.rpartition(":")[2]
    script = f'echo "Forwarding from 127.0.0.1:{port} -> 15090"\necho $$ > {tmp_path}/pid\nexec sleep 60'
    called = put_kubectl(tmp_path, monkeypatch, script)
    code = await asyncio.to_thread(main, ["journal", "--pod", "shop/products-0", "--context", "there"])
    assert code == 0
    assert "shop/products" in capsys.readouterr().out
    expected = "--context=there port-forward --namespace=shop --address=127.0.0.1 pod/products-0 :15090\n"
    assert called.read_text() == expected
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_pod_that_kubectl_does_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_kubectl(tmp_path, monkeypatch, 'echo "Error from server (NotFound): no such pod" >&2\nexit 1')
    assert main(["journal", "--pod", "shop/products-0"]) == 1
    assert "did not reach the pod: Error from server (NotFound): no such pod" in capsys.readouterr().err


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in (["status"], ["journal", "--pod", "shop/products-0"]):
        assert main(command) == 1
        assert "kubectl is not on PATH" in capsys.readouterr().err


@pytest.mark.parametrize("pod", ["products-0", "shop/", "/x", "a/b/c"])
def test_a_pod_is_named_with_its_namespace(pod: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "--pod", pod])
    assert ended.value.code == 2
    assert "is not NAMESPACE/NAME" in capsys.readouterr().err
