"""Chunks compressed here are chunks of HDF5's Blosc filter."""

import struct
from contextlib import suppress

import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

from pattern_lens.store.codec import compress, decompress, decompress_rows, filter_options

CHUNK = np.random.default_rng(5).integers(0, 9, (1, 3, 64)).astype(np.float32)


def test_round_trip():
    assert np.array_equal(decompress(compress(CHUNK), CHUNK.dtype, CHUNK.shape), CHUNK)


def test_plain_h5py_reads_a_chunk_written_directly(tmp_path):
    with h5py.File(tmp_path / "chunks.h5", "w") as file:
        data = file.create_dataset("data", (1, 3, 128), "f4", chunks=(1, 3, 64), **filter_options())
        data.id.write_direct_chunk((0, 0, 64), compress(CHUNK))
    with h5py.File(tmp_path / "chunks.h5") as file:
        assert np.array_equal(file["data"][..., 64:], CHUNK)
        assert not file["data"][..., :64].any()


def test_a_chunk_written_by_plain_h5py_is_read(tmp_path):
    with h5py.File(tmp_path / "chunks.h5", "w") as file:
        data = file.create_dataset("data", data=CHUNK, chunks=CHUNK.shape, **filter_options())
        _, raw = data.id.read_direct_chunk((0, 0, 0))
    assert np.array_equal(decompress(raw, CHUNK.dtype, CHUNK.shape), CHUNK)


def test_too_short():
    with pytest.raises(ValueError, match="a chunk of 7 bytes is too short for blosc"):
        decompress(b"\x02\x01\x24\x04\0\0\0", CHUNK.dtype, CHUNK.shape)


def test_of_another_shape():
    with pytest.raises(ValueError, match=r"unpacks to 512, got one that says .* and 768"):
        decompress(compress(CHUNK), CHUNK.dtype, (1, 2, 64))


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_cut_short(cut):
    with pytest.raises(ValueError, match="expected a chunk of"):
        decompress(compress(CHUNK)[:-cut], CHUNK.dtype, CHUNK.shape)


def test_sizes_that_would_make_blosc_read_beyond_the_chunk():
    raw = bytearray(compress(CHUNK))
    struct.pack_into("<I", raw, 12, 1 << 30)
    with pytest.raises(ValueError, match="says 1073741824 and 768"):
        decompress(bytes(raw), CHUNK.dtype, CHUNK.shape)


def test_damage_inside_is_an_error_or_another_value_but_never_a_crash():
    raw = compress(CHUNK)
    for bit in range(16 * 8, len(raw) * 8, 3):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with suppress(ValueError):
            assert decompress(bytes(damaged), CHUNK.dtype, CHUNK.shape).shape == CHUNK.shape


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8"])
@pytest.mark.parametrize("shape", [(12, 4096), (5, 4096), (4096, 12), (3, 16), (1, 64)])
@pytest.mark.parametrize("scale", [9, 2**60], ids=["packs well", "does not pack"])
def test_rows_of_a_chunk(dtype, shape, scale):
    rng = np.random.default_rng(len(dtype) + shape[0])
    raw = rng.integers(0, scale, shape, dtype=np.int64)
    chunk = raw.astype(dtype) if scale == 9 else np.resize(raw.view(dtype), shape)
    packed = compress(chunk)
    for first in {0, shape[0] // 2, shape[0] - 1}:
        for last in {first + 1, shape[0]}:
            rows = decompress_rows(packed, chunk.dtype, shape, first, last)
            assert rows.shape == (last - first, *shape[1:])
            assert rows.tobytes() == chunk[first:last].tobytes()


def test_rows_whatever_the_order_of_the_blocks():
    chunk = np.random.default_rng(3).integers(0, 99, (12, 4096)).astype(np.float32)
    packed = bytearray(compress(chunk))
    starts = struct.unpack_from("<3I", packed, 16)
    bounds = [*sorted(starts), len(packed)]  # compressing on several threads gives any order
    assert bounds[0] == 28
    blocks = [packed[at : bounds[bounds.index(at) + 1]] for at in starts]
    moved = [28 + len(blocks[2]) + len(blocks[1]), 28 + len(blocks[2]), 28]
    shuffled = packed[:16] + struct.pack("<3I", *moved) + blocks[2] + blocks[1] + blocks[0]
    for head in range(12):
        rows = decompress_rows(bytes(shuffled), chunk.dtype, chunk.shape, head, head + 1)
        assert np.array_equal(rows[0], chunk[head])


def test_damage_in_the_table_of_blocks_is_an_error():
    chunk = np.random.default_rng(4).integers(0, 99, (12, 4096)).astype(np.float32)
    for start in (0, 27, 2**31, 2**32 - 1):
        packed = bytearray(compress(chunk))
        struct.pack_into("<I", packed, 20, start)
        with pytest.raises(ValueError, match="table of blocks is damaged"):
            decompress_rows(bytes(packed), chunk.dtype, chunk.shape, 4, 5)


def test_damage_inside_is_never_a_crash_when_rows_are_restored():
    chunk = np.random.default_rng(4).integers(0, 99, (12, 4096)).astype(np.float32)
    raw = compress(chunk)
    rng = np.random.default_rng(5)
    for bit in [*range(16 * 8, 40 * 8), *rng.integers(40 * 8, len(raw) * 8, 2000).tolist()]:
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with suppress(ValueError):
            assert decompress_rows(bytes(damaged), chunk.dtype, chunk.shape, 5, 6).shape == (
                1,
                4096,
            )
