"""A docker-archive as a stream that containerd imports, without the layers that it has already.

Images share their large layers, and reading one again only to find that it is there costs seconds. So the archive is
retold as an OCI image layout, in which a blob may be missing when the store has it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from onenode.command import output, with_us
from onenode.console import ClusterError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
COMPRESSED = b"\x1f\x8b"


def import_archive(ctr: Sequence[str], archive: Path, name: str, snapshotter: str) -> None:
    """Import the first image of `archive` under the full reference `name`. Raises ClusterError.

    `ctr` is the command with address and namespace.
    """
    present = set(output([*ctr, "content", "list", "--quiet"]).split())
    command = with_us([*ctr, "images", "import", f"--snapshotter={snapshotter}", "-"])
    try:
        with (
            tarfile.open(archive) as source,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child,
        ):
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it says why below
                retell(source, name, present, child.stdin)
                child.stdin.close()
            words = child.stdout.read().decode(errors="replace").strip()
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ClusterError(f"{archive} is no docker-archive of plain layers: {error}") from error
    if child.returncode != 0:
        raise ClusterError(f"{archive} could not be loaded: {words}")


def retell(source: tarfile.TarFile, name: str, present: set[str], out: IO[bytes]) -> None:
    """Write the image of a docker-archive as an OCI layout, without the layers in `present`.

    Raises ValueError when a layer is compressed: its digest would not be the one that the configuration names.
    """
    image = json.loads(_read(source, "manifest.json"))[0]
    config = _read(source, image["Config"])
    members = [source.getmember(layer) for layer in image["Layers"]]
    members = [source.getmember(member.linkname) if member.issym() or member.islnk() else member for member in members]
    digests = json.loads(config)["rootfs"]["diff_ids"]
    if len(members) != len(digests):
        raise ValueError("its layers do not match its configuration")
    layers = [
        {"mediaType": LAYER, "digest": digest, "size": member.size}
        for member, digest in zip(members, digests, strict=True)
    ]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(CONFIG, config), "layers": layers}
    ).encode()
    named = {**_descriptor(MANIFEST, manifest), "annotations": {"io.containerd.image.name": name}}
    with tarfile.open(fileobj=out, mode="w|") as layout:
        _add(layout, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(layout, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
        for blob in (manifest, config):
            _add(layout, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        for member, digest in zip(members, digests, strict=True):
            if digest in present:
                continue
            content = source.extractfile(member)
            if content is None or content.read(2) == COMPRESSED:
                raise ValueError(f"layer {member.name} is compressed")
            content.seek(0)
            blob_member = tarfile.TarInfo(f"blobs/{digest.replace(':', '/')}")
            blob_member.size = member.size
            layout.addfile(blob_member, content)


def _read(source: tarfile.TarFile, name: str) -> bytes:
    member = source.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    return member.read()


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _add(layout: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    layout.addfile(member, io.BytesIO(data))
