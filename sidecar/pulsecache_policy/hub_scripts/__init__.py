"""The hub's Lua scripts: what sidecars and the controller both run on a dataset's keys in Redis.

Text only; sending it is up to the caller (EVALSHA, and EVAL after NOSCRIPT). All keys of a dataset share the hash tag
`{namespace/name}`, so every script is one atomic step also in a Redis Cluster.

    KEYS[1] = hub_key(dataset)      hash; without it there is no epoch
    KEYS[2] = stream_key(dataset)   stream of entries, ids `<sequence>-<nonce>`
    KEYS[3] = object_key(dataset, key)    only get, put and change_and_store

ARGV and the reply are in each script's head comment. A call that carries another epoch than the hash's is answered by
the error FOREIGNEPOCH, one for a publisher that is not a member by UNKNOWNPUBLISHER. `nonce` is a random decimal
number below 2^53, new for each call: it makes the id of an entry unique for ever, also where a failover lost the end
of the stream and the same sequence number is given out again. Tags travel as JSON arrays of strings.
"""

from __future__ import annotations

from importlib.resources import files

READ_ONLY = ("get", "publishers")
SCRIPTS = (
    "beat", "change", "change_and_store", "cover", "doubt", "fence", "get",
    "join", "leave", "publishers", "put", "sample", "subscribe",
)  # fmt: skip

OLD_EPOCH = "old-epoch"
"""Publisher that stands for all publishers of the epoch before."""
UNCOVERED = "uncovered"
"""Publisher that stands for replicas without a sidecar; entered and removed by `cover`."""


def script(name: str) -> str:
    """The whole text of a script: its first line (flags), the common part, and its own.

    Raises FileNotFoundError for a name that is not in SCRIPTS.
    """
    folder = files(__name__)
    own = (folder / f"{name}.lua").read_text(encoding="utf-8")
    common = (folder / "common.lua").read_text(encoding="utf-8")
    if own.startswith("#!"):
        shebang, _, own = own.partition("\n")
        return f"{shebang}\n{common}\n{own}"
    return f"{common}\n{own}"


def hub_key(dataset: str) -> str:
    return f"pc:{{{dataset}}}:hub"


def stream_key(dataset: str) -> str:
    return f"pc:{{{dataset}}}:stream"


def object_key(dataset: str, key: str) -> str:
    return f"pc:{{{dataset}}}:o:{key}"
