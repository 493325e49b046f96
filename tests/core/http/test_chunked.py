"""The chunked coding: decoded alike however the bytes arrive, and nothing odd gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http.chunked import LAST_CHUNK, MAX_LINE, MAX_TRAILERS, BadChunk, ChunkedDecoder, encode


def decode(*pieces: bytes) -> tuple[bytes, bytes]:
    decoder = ChunkedDecoder()
    out = b""
    for index, piece in enumerate(pieces):
        out += b"".join(decoder.feed(piece))
        if decoder.done:
            return out, decoder.rest + b"".join(pieces[index + 1 :])
    raise AssertionError("the body did not end")


@given(st.lists(st.binary(min_size=1, max_size=50)), st.data())
def test_what_was_encoded_is_decoded_wherever_it_was_cut(chunks: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(encode, chunks)) + LAST_CHUNK + b"next"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert decode(*pieces) == (b"".join(chunks), b"next")


@pytest.mark.parametrize(
    "wire",
    [
        b"3\r\nabc\r\n0\r\n\r\n",
        b"003\r\nabc\r\n00\r\n\r\n",
        b"3;ext=1\r\nabc\r\n0;x\r\n\r\n",
        b'3 ; a="b c"\r\nabc\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n',
    ],
)
def test_sound_bodies(wire: bytes) -> None:
    assert decode(wire) == (b"abc", b"")
    assert decode(*(wire[i : i + 1] for i in range(len(wire)))) == (b"abc", b"")


@pytest.mark.parametrize(
    "wire",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\r\r",
        b"\r\n",
        b"\n",
        b"+3\r\n",
        b"0x3\r\n",
        b"3_0\r\n",
        b" 3\r\n",
        b"3 \r\n",
        b"-1\r\n",
        b"g\r\n",
        b";a\r\n",
        b"3;\x00\r\n",
        b"3;a\rb\r\n",
        b"1000000000000000\r\n",
        b"ffffffffffffffffffff\r\n",
        b"3;" + b"a" * MAX_LINE,
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\na : 1\r\n\r\n",
        b"0\r\na: \x00\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS // 6 + 1),
    ],
)
def test_unsound_bodies_are_refused(wire: bytes) -> None:
    with pytest.raises(BadChunk):
        ChunkedDecoder().feed(wire)
    with pytest.raises(BadChunk):
        _byte_by_byte(wire)


def _byte_by_byte(wire: bytes) -> None:
    decoder = ChunkedDecoder()
    for index in range(len(wire)):
        decoder.feed(wire[index : index + 1])
