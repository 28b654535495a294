"""The first 48 bytes of an HDF5 file."""

import struct

import h5py
import pytest

from pattern_lens.store.superblock import clear_after_crash, lookup3, read_superblock


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "plain.h5"
    with h5py.File(target, "w", libver=("v110", "v110")) as file:
        file.create_dataset("x", data=range(5))
    return target


@pytest.mark.parametrize(
    ("data", "start", "expected"),
    [
        (b"Four score and seven years ago", 0, 0x17770551),
        (b"Four score and seven years ago", 1, 0xCD628161),
        (b"", 0, 0xDEADBEEF),
    ],
)
def test_lookup3_gives_its_authors_values(data, start, expected):
    assert lookup3(data, start) == expected


def test_of_a_closed_file(path):
    block = read_superblock(path)
    assert block is not None
    assert (block.head[8], block.flags, block.is_clean, block.intact) == (3, 0, True, True)
    assert block.end == path.stat().st_size


def test_of_a_file_open_for_writing(path):
    file = h5py.File(path, "r+", libver=("v110", "v110"), locking=False)
    file.swmr_mode = True
    block = read_superblock(path)
    file.close()
    assert block is not None
    assert (block.flags, block.is_clean, block.intact) == (5, False, True)


def test_after_a_crash(path):
    raw = bytearray(path.read_bytes())
    raw[11] = 5
    struct.pack_into("<I", raw, 44, lookup3(bytes(raw[:44])))
    path.write_bytes(raw + b"uncommitted")
    with pytest.raises(OSError, match=r"Unable to .*open file"):
        h5py.File(path, locking=False)
    clear_after_crash(path)
    block = read_superblock(path)
    assert block is not None
    assert block.is_clean
    assert block.intact
    assert block.end == len(raw) + len(b"uncommitted")
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("byte", [11, 12, 28, 36, 44])
def test_damage(path, byte):
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 4
    path.write_bytes(raw)
    block = read_superblock(path)
    assert block is not None
    assert not block.intact


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n\x03", b"x" * 99])
def test_none_there(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    assert read_superblock(tmp_path / "other") is None


def test_old_superblocks_are_left_alone(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w", libver=("earliest", "v108")):
        pass
    assert read_superblock(tmp_path / "old.h5") is None
