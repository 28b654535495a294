"""Chunks compressed here are chunks of HDF5's Blosc filter."""

import struct
from contextlib import suppress

import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest

from pattern_lens.store.codec import compress, decompress, filter_options

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
