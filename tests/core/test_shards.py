"""Our shards and zarr-python's are each other's."""

import json
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc
from numpy.typing import NDArray

from services.core import layout
from services.core.errors import Damaged
from services.core.shards import ABSENT, decode_chunk, decode_index, encode_shard, index_length, shard_chunks

type Shape3 = tuple[int, int, int]

DTYPES = ["int8", "uint8", "int16", "int32", "int64", "float32", "float64"]


def fill_of(dtype: str) -> np.generic:
    scalar: np.generic = np.dtype(dtype).type("nan" if dtype.startswith("float") else 7)
    return scalar


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[NDArray[Any], Shape3, Shape3]:
    """Values with patches of nothing, and a chunk and a shard shape that rarely divide them."""
    dtype = draw(st.sampled_from(DTYPES))
    chunk = tuple(draw(st.integers(1, 4)) for _ in range(3))
    shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(draw(st.integers(1, 2 * s)) for s in shard)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 100, shape).astype(dtype)
    values[rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = fill_of(dtype)
    corner = tuple(slice(0, draw(st.integers(0, n))) for n in shape)
    values[corner] = fill_of(dtype)
    return values, shard, chunk  # type: ignore[return-value]


def metadata_of(values: NDArray[Any], shard: Shape3, chunk: Shape3) -> dict[str, Any]:
    fill = fill_of(values.dtype.name)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(values.shape),
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if values.dtype.kind == "f" else int(fill),
        "codecs": layout.codecs(values.dtype.name, chunk),
        "attributes": {},
        "dimension_names": ["time", "y", "x"],
    }


def pieces(values: NDArray[Any], shard: Shape3) -> dict[Shape3, NDArray[Any]]:
    """Shard number -> its part of the values."""
    counts = tuple(-(-n // s) for n, s in zip(values.shape, shard, strict=True))
    return {
        at: values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, shard, strict=True))]
        for at in np.ndindex(*counts)
    }


def write(root: Path, values: NDArray[Any], shard: Shape3, chunk: Shape3) -> None:
    root.mkdir()
    (root / "zarr.json").write_bytes(layout.canonical(metadata_of(values, shard, chunk)))
    for at, piece in pieces(values, shard).items():
        path = root / "c" / "/".join(str(i) for i in at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_shard(piece, shard, chunk, fill_of(values.dtype.name)))


def read(body: bytes, shard: Shape3, chunk: Shape3, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A whole shard by our own functions."""
    index = decode_index("a/key", body[-index_length(shard, chunk) :])
    out = np.full(shard, fill_of(dtype.name))
    for (offset, length), at in zip(index.tolist(), shard_chunks(shard, chunk), strict=True):
        target = tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, chunk, strict=True))
        if offset != ABSENT:
            out[target] = decode_chunk("a/key", body[offset : offset + length], chunk, dtype)
    return out


@settings(max_examples=60, deadline=None)
@given(arrays())
def test_zarr_python_reads_what_we_write(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[NDArray[Any], Shape3, Shape3]
) -> None:
    values, shard, chunk = case
    root = tmp_path_factory.mktemp("ours") / "array"
    write(root, values, shard, chunk)
    array = zarr.open_array(root, mode="r", config={"read_missing_chunks": False})
    assert isinstance(array, zarr.Array)
    assert (array.shards, array.chunks) == (shard, chunk)
    assert same(np.asarray(array[:]), values)


@settings(max_examples=60, deadline=None)
@given(case=arrays(), write_empty_chunks=st.booleans())
def test_we_read_what_zarr_python_writes(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[NDArray[Any], Shape3, Shape3], *, write_empty_chunks: bool
) -> None:
    values, shard, chunk = case
    root = tmp_path_factory.mktemp("theirs") / "array"
    root.mkdir()
    (root / "zarr.json").write_text(json.dumps(metadata_of(values, shard, chunk)))
    array = zarr.open_array(root, mode="r+", config={"write_empty_chunks": write_empty_chunks})
    array[:] = values
    for at, piece in pieces(values, shard).items():
        path = root / "c" / "/".join(str(i) for i in at)
        found = np.full(shard, fill_of(values.dtype.name))
        if path.exists():
            found = read(path.read_bytes(), shard, chunk, values.dtype)
        else:
            assert not write_empty_chunks  # zarr leaves out a shard of nothing; ours never does
        assert same(found[tuple(slice(0, n) for n in piece.shape)], piece)


@settings(max_examples=60, deadline=None)
@given(arrays())
def test_what_we_write_we_read(case: tuple[NDArray[Any], Shape3, Shape3]) -> None:
    values, shard, chunk = case
    for piece in pieces(values, shard).values():
        body = encode_shard(piece, shard, chunk, fill_of(values.dtype.name))
        whole = read(body, shard, chunk, values.dtype)
        assert same(whole[tuple(slice(0, n) for n in piece.shape)], piece)
        outside = np.ones(shard, dtype=bool)
        outside[tuple(slice(0, n) for n in piece.shape)] = False
        assert same(whole[outside], np.full(outside.sum(), fill_of(values.dtype.name)))


def test_a_chunk_of_nothing_is_left_out_and_a_shard_of_nothing_is_there() -> None:
    shard, chunk = (1, 4, 4), (1, 2, 2)
    values = np.full(shard, 7, dtype=np.int16)
    body = encode_shard(values, shard, chunk, np.int16(7))
    assert len(body) == index_length(shard, chunk) == 4 * 16 + 4
    assert (decode_index("k", body) == ABSENT).all()
    values[0, 3, 0] = 8
    body = encode_shard(values, shard, chunk, np.int16(7))
    index = decode_index("k", body[-index_length(shard, chunk) :])
    assert (index == ABSENT).all(axis=1).tolist() == [True, True, False, True]


def test_negative_zero_and_infinities_are_values() -> None:
    """A chunk is left out only if reading it as missing gives the same: NaN is the only missing float."""
    shard = chunk = (1, 1, 4)
    values = np.array([[[0.0, -0.0, np.inf, np.nan]]], dtype=np.float32)
    body = encode_shard(values, shard, chunk, np.float32("nan"))
    np.testing.assert_array_equal(np.signbit(read(body, shard, chunk, values.dtype))[0, 0, :2], [False, True])
    assert same(read(body, shard, chunk, values.dtype), values)


def test_equal_values_give_equal_bytes_in_any_thread() -> None:
    """blosc's own threads write their blocks in the order they finish; a resumed render must give the same digest."""
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.integers(-3, 4, (1, 1400, 1400)), axis=2).astype(np.int32)
    found: set[bytes] = set()

    def encode() -> None:
        found.add(encode_shard(values, (1, 1400, 1400), (1, 700, 700), np.int32(7)))

    for _ in range(4):
        encode()
    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_equal_values_in_another_memory_order_give_equal_bytes() -> None:
    values = np.arange(2 * 6 * 8, dtype=np.int16).reshape(2, 6, 8)
    turned = np.asfortranarray(values)
    wide = np.zeros((2, 6, 16), dtype=np.int16)
    wide[:, :, ::2] = values
    bodies = {encode_shard(one, (2, 6, 8), (1, 3, 4), np.int16(7)) for one in (values, turned, wide[:, :, ::2])}
    assert len(bodies) == 1


def test_every_flipped_bit_of_a_shard_is_damage_or_outside_what_was_asked() -> None:
    shard, chunk = (1, 4, 4), (1, 2, 2)
    values = np.arange(16, dtype=np.float32).reshape(shard)
    body = encode_shard(values, shard, chunk, np.float32("nan"))
    for position in range(len(body)):
        spoilt = bytearray(body)
        spoilt[position] ^= 1 << (position % 8)
        with pytest.raises(Damaged, match=r"'a/key' is damaged: the checksum of (a chunk|its index) does not hold"):
            read(bytes(spoilt), shard, chunk, values.dtype)


def with_checksum(body: bytes) -> bytes:
    checksum: int = google_crc32c.value(body)
    return body + checksum.to_bytes(4, "little")


@pytest.mark.parametrize("length", [0, 1, 3, 4, 15, 17])
def test_a_chunk_that_is_cut_short_is_damage(length: int) -> None:
    coded = with_checksum(bytes(Blosc().encode(np.arange(8, dtype=np.int16))))
    with pytest.raises(Damaged, match=r"the checksum of a chunk does not hold|a chunk cannot be decoded"):
        decode_chunk("k", coded[:length], (1, 2, 4), np.dtype(np.int16))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.arange(7, dtype=np.int16), "holds 14 bytes and not 16"),
        (np.arange(8, dtype=np.int32), "holds 32 bytes and not 16"),
        (np.arange(3, dtype=np.int8), "holds 3 bytes and not 16"),
    ],
)
def test_a_chunk_of_another_size_is_damage_though_its_checksum_holds(values: NDArray[Any], said: str) -> None:
    with pytest.raises(Damaged, match=said):
        decode_chunk("k", with_checksum(bytes(Blosc().encode(values))), (1, 2, 4), np.dtype(np.int16))


def test_bytes_that_are_no_blosc_are_damage_though_their_checksum_holds() -> None:
    for body in (b"", b"\0" * 3, b"not blosc at all, but long enough"):
        with pytest.raises(Damaged, match=r"a chunk cannot be decoded|and not 16"):
            decode_chunk("k", with_checksum(body), (1, 2, 4), np.dtype(np.int16))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
@pytest.mark.parametrize("chunk", [(1, 450, 450), (84, 30, 30), (120, 15, 15), (1, 675, 675)])
def test_blocks_are_whole_groups_of_eight_values_and_shuffled_as_the_metadata_say(dtype: str, chunk: Shape3) -> None:
    values = np.arange(np.prod(chunk)).reshape(chunk).astype(dtype) + np.ones(1, dtype)
    body = encode_shard(values, chunk, chunk, np.dtype(dtype).type(0))
    # Blosc's header: flags, then sizes of the values and of a block
    # (https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst)
    flags, size, block = body[2], *(int.from_bytes(body[at : at + 4], "little") for at in (4, 8))
    group = 8 * values.itemsize
    assert size == values.nbytes
    assert block % group == 0
    assert size % block < group * (size // block), "but for a few values blocks fill the chunk"
    assert bool(flags & 1) == (dtype == "float32")
    assert bool(flags & 4) == (dtype != "float32")
    inner = layout.codecs(dtype, chunk)[0]["configuration"]["codecs"][1]["configuration"]
    assert inner["shuffle"] == ("shuffle" if dtype == "float32" else "bitshuffle")
    assert inner["blocksize"] == block


def test_what_is_read_cannot_be_written_into() -> None:
    coded = with_checksum(bytes(Blosc().encode(np.arange(8, dtype=np.int16))))
    values = decode_chunk("k", coded, (1, 2, 4), np.dtype(np.int16))
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0, 0] = 1
