"""Images are made of layers and archives that depend on their content alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from onenode.archive import Layer, Runtime, write_archive, write_layer
from onenode.console import ClusterError
from onenode.containerd_import import retell
from onenode.images import IMAGES, REPOSITORY, build, tree_digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "package" / "module.py").write_text("x = 1\n")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("run")
    return tree


def layer_of(tree: Path, tar: Path) -> Layer:
    write_layer(tar, {"/opt/app": tree, "/usr/local/bin/run": tree / "run"})
    return Layer.of(tar)


def test_a_layer_holds_the_files_owned_by_root_without_dates(tree: Path, tmp_path: Path) -> None:
    layer = layer_of(tree, tmp_path / "layer.tar")
    with tarfile.open(layer.tar) as members:
        found = {member.name: member for member in members}
    assert set(found) == {
        "opt",
        "opt/app",
        "opt/app/package",
        "opt/app/package/module.py",
        "opt/app/run",
        "opt/app/link",
        "usr",
        "usr/local",
        "usr/local/bin",
        "usr/local/bin/run",
    }
    assert found["opt/app/run"].mode == 0o755
    assert found["opt/app/package/module.py"].mode == 0o644
    assert found["opt/app/link"].linkname == "run"
    assert {(member.uid, member.gid, member.mtime) for member in found.values()} == {(0, 0, 0)}


def test_the_same_content_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    one = layer_of(tree, tmp_path / "one.tar")
    os.utime(tree / "run", (1, 1))
    other = layer_of(tree, tmp_path / "other.tar")
    assert one.digest == other.digest == hashlib.sha256(one.tar.read_bytes()).hexdigest()
    archives = [tmp_path / "one", tmp_path / "other"]
    for archive in archives:
        write_archive(archive, "app:dev", [one], Runtime(["run"]))
    assert archives[0].read_bytes() == archives[1].read_bytes()


def test_a_layer_made_anew_gets_a_new_digest(tree: Path, tmp_path: Path) -> None:
    before = layer_of(tree, tmp_path / "layer.tar")
    (tree / "run").write_text("#!/bin/sh\nexit 1\n")
    after = layer_of(tree, tmp_path / "layer.tar")
    assert after.digest != before.digest


def test_an_archive_is_what_docker_load_expects(tree: Path, tmp_path: Path) -> None:
    layer = layer_of(tree, tmp_path / "layer.tar")
    archive = tmp_path / "image.tar"
    runtime = Runtime(["run", "fast"], environment={"A": "b"})
    write_archive(archive, "pulsecache/app:dev", [layer], runtime)
    with tarfile.open(archive) as members:
        manifest = json.load(members.extractfile("manifest.json") or io.BytesIO())
        config = json.load(members.extractfile(manifest[0]["Config"]) or io.BytesIO())
        content = (members.extractfile(manifest[0]["Layers"][0]) or io.BytesIO()).read()
    assert manifest[0]["RepoTags"] == ["pulsecache/app:dev"]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{layer.digest}"]}
    assert config["config"]["Entrypoint"] == ["run", "fast"]
    assert config["config"]["User"] == "65532:65532"
    assert "A=b" in config["config"]["Env"]
    assert content == layer.tar.read_bytes()


@pytest.mark.parametrize("present", [True, False])
def test_containerd_gets_only_the_layers_that_it_lacks(tree: Path, tmp_path: Path, present: bool) -> None:
    layer = layer_of(tree, tmp_path / "layer.tar")
    archive = tmp_path / "image.tar"
    write_archive(archive, "app:dev", [layer], Runtime(["run"]))
    out = io.BytesIO()
    with tarfile.open(archive) as source:
        retell(source, "docker.io/library/app:dev", {f"sha256:{layer.digest}"} if present else set(), out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as layout:
        names = layout.getnames()
        index = json.load(layout.extractfile("index.json") or io.BytesIO())
        (described,) = index["manifests"]
        manifest = json.load(layout.extractfile(f"blobs/{described['digest'].replace(':', '/')}") or io.BytesIO())
    assert described["annotations"] == {"io.containerd.image.name": "docker.io/library/app:dev"}
    assert manifest["layers"][0]["digest"] == f"sha256:{layer.digest}"
    assert (f"blobs/sha256/{layer.digest}" in names) is not present


def test_the_digest_of_sources_ignores_what_python_writes_beside_them(tree: Path) -> None:
    before = tree_digest(tree, ["package"])
    (tree / "package" / "__pycache__").mkdir()
    (tree / "package" / "__pycache__" / "module.pyc").write_text("")
    assert tree_digest(tree, ["package"]) == before
    (tree / "package" / "module.py").write_text("x = 2\n")
    assert tree_digest(tree, ["package"]) != before


def test_a_missing_source_is_named(tree: Path) -> None:
    with pytest.raises(ClusterError, match="absent is missing"):
        tree_digest(tree, ["absent"])


def test_an_unknown_image_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="unknown image nginx; there are sidecar, operator"):
        build(["nginx"], tmp_path)


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_the_dockerfile_of_an_image_starts_the_same_program(name: str) -> None:
    image = IMAGES[name]
    text = (REPOSITORY / image.dockerfile).read_text()
    if image.target:
        text = text.partition(f" AS {image.target}\n")[2].partition("\nFROM ")[0]
    assert f"ENTRYPOINT {json.dumps(list(image.runtime.entrypoint))}" in text
    for key, value in (image.runtime.environment or {}).items():
        assert f"{key}={value}" in text
    if image.lock:
        assert image.lock in text
        assert (REPOSITORY / image.lock).exists()


@pytest.mark.parametrize("lock", sorted(path.name for path in (REPOSITORY / "requirements").glob("*.lock")))
def test_every_locked_package_has_hashes_and_no_index_is_named(lock: str) -> None:
    text = (REPOSITORY / "requirements" / lock).read_text()
    packages = [block for block in text.replace("\\\n", "").splitlines() if "==" in block.split("--hash")[0]]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text
    assert "--index" not in text
