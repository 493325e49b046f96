"""What people see of the cluster's commands: clear words about settings, missing tools, and where images go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onenode import commands, folder, image_commands, loading, tools
from onenode.build import ALL, MODULES, Binaries, Module
from onenode.console import ClusterError, duration
from onenode.settings import settings


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PULSECACHE_CLUSTER_DIR", "PULSECACHE_CLUSTER_NAME", "PULSECACHE_CLUSTER_SUBNET", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PULSECACHE_CACHE", str(tmp_path / "cache"))


class TestSettings:
    def test_defaults(self, tmp_path: Path) -> None:
        found = settings()
        assert found.name == "pulsecache"
        assert found.directory == tmp_path / "cache" / "cluster" / "run"
        assert (found.host_address, found.node_address) == ("10.199.0.1", "10.199.0.2")

    def test_the_environment_and_over_it_flags(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULSECACHE_CLUSTER_DIR", "/srv/one")
        monkeypatch.setenv("PULSECACHE_CLUSTER_SUBNET", "10.199.0.4/30")
        assert settings().directory == Path("/srv/one")
        assert settings().node_address == "10.199.0.6"
        assert settings(directory=Path("/srv/two")).directory == Path("/srv/two")

    @pytest.mark.parametrize(
        ("name", "subnet", "words"),
        [
            ("a/b", None, "cluster name"),
            ("", "10.0.0.0", "two addresses"),
            ("", "10.0.0.1/30", "host bits set"),
            ("", "word", "word"),
        ],
    )
    def test_nonsense_is_refused(self, name: str, subnet: str | None, words: str) -> None:
        with pytest.raises(ClusterError, match=words):
            settings(name, None, subnet)

    def test_a_folder_too_long_for_sockets_is_refused(self) -> None:
        with pytest.raises(ClusterError, match="PULSECACHE_CLUSTER_DIR"):
            settings(directory=Path("/" + "x" * 100))


class TestTools:
    def test_everything_missing_is_named_at_once_with_what_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tools, "find", lambda tool: None)
        with pytest.raises(ClusterError) as caught:
            tools.require(tools.NODE)
        words = str(caught.value)
        assert all(tool in words for tool in tools.NODE)
        assert "apt-get install conntrack containerd containernetworking-plugins ethtool iproute2 iptables" in words
        assert "dnf install conntrack-tools containerd" in words

    def test_every_tool_has_packages(self) -> None:
        assert set(tools.NODE) <= set(tools.PACKAGES)

    def test_system_folders_are_searched_even_if_path_lacks_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert tools.find("sh") is not None

    def test_the_command_says_it_and_fails(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(tools, "find", lambda tool: None)
        assert commands.main(["up"]) == 1
        assert "error: missing on this machine: containerd" in capsys.readouterr().err


class TestBinaries:
    def test_a_binary_belongs_to_what_it_is_built_from(self, tmp_path: Path) -> None:
        binaries = Binaries(tmp_path)
        assert binaries.missing() == list(ALL)
        for binary in ALL:
            path = binaries.path(binary)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert binaries.missing() == []
        binaries.ensure()  # builds nothing: it would need a compiler and minutes

    def test_the_version_is_that_of_go_mod(self) -> None:
        version = Binaries(Path()).kubernetes_version()
        kubernetes = next(module for module in MODULES if module.name == "kubernetes")
        assert version.startswith("v1.34.")
        assert f"gitVersion={version}" in kubernetes.link_flags()
        assert "gitMinor=34" in kubernetes.link_flags()

    def test_other_sources_are_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("onenode.build.SOURCES", tmp_path)
        module = Module("thing", {"thing": "."})
        module.source.mkdir()
        (module.source / "go.mod").write_text("module thing\n")
        before = module.digest()
        (module.source / "main.go").write_text("package main\n")
        assert module.digest() != before


class TestWhereImagesGo:
    @pytest.mark.parametrize(
        ("context", "tool", "expected"),
        [
            ("kind-dev", "kind", "load image-archive FILE --name dev"),
            ("k3d-dev", "k3d", "image import FILE --cluster dev"),
            ("minikube", "minikube", "image load FILE --profile minikube"),
            ("docker-desktop", "docker", "load --input FILE"),
        ],
    )
    def test_a_context_names_the_tool(
        self, context: str, tool: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = tmp_path / "said"
        program = tmp_path / tool
        program.write_text(f'#!/bin/sh\necho "$@" >{said}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        loading.target(context).load("pulsecache/shop:dev", Path("FILE"))
        assert said.read_text().strip() == expected

    def test_a_minikube_profile_may_have_any_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "minikube"
        program.write_text('#!/bin/sh\necho \'{"invalid": [], "valid": [{"Name": "lab"}]}\'\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert str(loading.target("lab")) == "lab"

    def test_another_cluster_is_told_to_use_a_registry(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert image_commands.main(["load", "shop", "--context", "production"]) == 1
        assert "image.registry" in capsys.readouterr().err

    def test_a_missing_tool_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ClusterError, match="kind, which is not on PATH"):
            loading.target("kind-dev").load("pulsecache/shop:dev", Path("FILE"))

    def test_without_a_cluster_it_says_how_to_get_one(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="make cluster-up"):
            loading.target(None).load("pulsecache/shop:dev", tmp_path / "FILE")

    @pytest.mark.parametrize(
        ("short", "full"),
        [
            ("redis", "docker.io/library/redis:latest"),
            ("pulsecache/shop:dev", "docker.io/pulsecache/shop:dev"),
            ("localhost:5000/shop", "localhost:5000/shop:latest"),
            ("registry.example/team/shop:1", "registry.example/team/shop:1"),
        ],
    )
    def test_a_reference_is_completed_as_containerd_does(self, short: str, full: str) -> None:
        assert loading.full_reference(short) == full


class TestFolders:
    def test_a_folder_of_ours_is_removed_whole(self, tmp_path: Path) -> None:
        ours = tmp_path / "ours"
        folder.claim(ours)
        (ours / "deep" / "er").mkdir(parents=True)
        (ours / "link").symlink_to(tmp_path)
        folder.claim(ours)
        folder.remove(ours)
        assert not ours.exists()
        assert tmp_path.exists()
        folder.remove(ours)

    def test_a_folder_with_other_files_is_neither_taken_nor_removed(self, tmp_path: Path) -> None:
        (tmp_path / "note").touch()
        with pytest.raises(ClusterError, match="not a cluster's"):
            folder.claim(tmp_path)
        folder.remove(tmp_path)
        assert (tmp_path / "note").exists()


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (125, "2 min 05 s")])
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
