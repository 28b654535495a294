"""Each way in which a file can be wrong has its own error and message; none is taken for right."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from pattern_lens.errors import (
    DamagedFileError,
    FormatTooNewError,
    FormatTooOldError,
    NotAPatternFileError,
)
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.superblock import lookup3
from pattern_lens.store.writer import StoreWriter

HERE = Path(__file__).parent


def open_reader(path):
    StoreReader(path)


def open_writer(path):
    with StoreWriter(path, None):
        pass


both = pytest.mark.parametrize("open_", [open_reader, open_writer])


@both
def test_missing(tmp_path, open_):
    with pytest.raises(FileNotFoundError, match=r"cannot .*absent.h5: there is no such file"):
        open_(tmp_path / "absent.h5")


@both
def test_folder(tmp_path, open_):
    with pytest.raises(NotAPatternFileError, match="expected an HDF5 file, got a folder"):
        open_(tmp_path)


@both
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"\x89HDF"])
def test_not_hdf5(tmp_path, open_, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(
        NotAPatternFileError,
        match=r"expected an HDF5 file written by pattern_lens, got a file that begins with b'",
    ):
        open_(tmp_path / "a.npz")


@both
@pytest.mark.parametrize(
    "libver", [("earliest", "v108"), ("v108", "v108"), ("v110", "v110")], ids=lambda v: v[0]
)
def test_hdf5_of_another_kind(tmp_path, open_, libver):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["x"] = np.arange(3)
    before = path.read_bytes()
    with pytest.raises(
        NotAPatternFileError,
        match=r"an HDF5 file of another kind \(expected the root attribute format='pattern_lens', got None\)",
    ):
        open_(path)
    assert path.read_bytes() == before


@both
@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        ("2.0", FormatTooNewError, "it has format 2.0, this version reads up to 1.x; update with"),
        ("0.9", FormatTooOldError, "it has format 0.9, older than 1.0"),
        ("new", DamagedFileError, "its format_version is 'new', expected major.minor"),
    ],
)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_other_versions(written, open_, version, error, message, as_bytes):
    with h5py.File(written, "r+", libver=("v110", "v110")) as file:
        file.attrs["format_version"] = np.bytes_(version) if as_bytes else version
    with pytest.raises(error, match=message):
        open_(written)


def test_a_larger_minor_version_is_read(written):
    with h5py.File(written, "r+", libver=("v110", "v110")) as file:
        file.attrs["format_version"] = "1.7"
        file.attrs["later"] = [1, 2]
        file.create_group("probes")
        file.create_group("traces/t/of_a_later_version")
    reader = StoreReader(written)
    assert reader.array("pattern").is_intact(0)
    assert reader.trace_variables("t") == ["head_direct_effect", "node_value"]
    assert len(reader.traced("t")) == 11


@both
@pytest.mark.parametrize("kept", [8, 40, 48, 200, 5_000, 0.3, 0.9, -1])
def test_truncated(written, open_, kept):
    size = written.stat().st_size
    length = int(size * kept) if isinstance(kept, float) else kept % size
    os.truncate(written, length)
    with pytest.raises(DamagedFileError, match=r"cannot open .*written.h5"):
        open_(written)


def test_truncated_names_the_sizes(written):
    size = written.stat().st_size
    os.truncate(written, size - 1)
    with pytest.raises(
        DamagedFileError,
        match=f"the file is truncated, it has {size - 1:,} of {size:,} bytes; copy it again",
    ):
        StoreReader(written)


@both
@pytest.mark.parametrize("byte", [9, 11, 20, 30, 46])
def test_damaged_superblock(written, open_, byte):
    raw = bytearray(written.read_bytes())
    raw[byte] ^= 0x10
    written.write_bytes(raw)
    with pytest.raises(
        DamagedFileError,
        match=r"cannot open .*(the first 48 bytes are damaged|structure cannot be read)",
    ):
        open_(written)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, seed):
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    done = subprocess.run(
        [sys.executable, HERE / "flip_bits.py", tmp_path, "120", str(seed)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # -11 would be a crash
    counts = json.loads(done.stdout)
    assert [
        verdict for verdict in counts if verdict.isupper() or verdict.startswith("FOREIGN")
    ] == []
    assert counts["DamagedFileError"] > 3
    assert counts["noticed"] > 3


# --- files of others: root may do anything, so this is done as another user ----------------------

AS_NOBODY = """
import os, sys
from pathlib import Path
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
what, warm, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
StoreReader(warm).array("pattern").read(0)  # everything is imported while it can be
os.setgid(65534); os.setuid(65534)
try:
    if what == "read":
        print(StoreReader(path).array("pattern").is_intact(0))
    else:
        StoreWriter(path, None).close()
        print("written")
except Exception as err:
    print(type(err).__name__, err)
"""


@pytest.fixture
def shared(written):
    """A folder that other users can look into, with a file of root's."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user: run the tests in a container")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(written, folder / "file.h5")
        (folder / "file.h5").chmod(0o444)
        folder.chmod(0o555)
        yield folder


def as_nobody(what: str, folder: Path, warm: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, what, warm, folder / "file.h5"],
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_reading_in_a_folder_of_others(shared, written):
    assert as_nobody("read", shared, written) == "True"


def test_writing_in_a_folder_of_others(shared, written):
    said = as_nobody("write", shared, written)
    assert said.startswith("FileNotWritableError cannot write to ")
    assert "no lock file can be made in" in said


def test_writing_to_a_file_of_others(shared, written):
    shared.chmod(0o777)
    said = as_nobody("write", shared, written)
    assert said.startswith("FileNotWritableError cannot write to ")
    assert "check its permissions" in said


@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_reading_what_a_killed_writer_of_others_left(shared, written, mode):
    path = shared / "file.h5"
    raw = bytearray(path.read_bytes())
    raw[11] = 5  # open for appending
    struct.pack_into("<I", raw, 44, lookup3(bytes(raw[:44])))
    path.write_bytes(raw)
    shared.chmod(mode)
    assert as_nobody("read", shared, written) == "True"


@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_reading_what_a_transaction_of_others_left(shared, written, mode):
    (shared / ".file.h5.journal").write_bytes(b"PLJRNL01 and no more")
    (shared / ".file.h5.lock").write_bytes(b"{}")
    shared.chmod(mode)
    if mode == 0o555:
        said = as_nobody("read", shared, written)
        assert said.startswith("UnfinishedFileError cannot open ")
        assert "its last writer was interrupted, and the file cannot be recovered from here" in said
        assert "run 'pattern-lens verify file.h5' where it can be written to" in said
    (shared / "file.h5").chmod(0o666)
    (shared / ".file.h5.lock").chmod(0o666)
    shared.chmod(0o777)
    assert as_nobody("read", shared, written) == "True"


def test_an_unreadable_file(shared, written):
    (shared / "file.h5").chmod(0o600)
    assert as_nobody("read", shared, written).startswith("PermissionError")
