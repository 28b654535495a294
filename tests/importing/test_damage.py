"""Damaged prompts and archives: listed with the reason, and everything else arrives."""

import os
import zipfile

import numpy as np
import pytest

from pattern_lens.importing import import_folder


def load(path):
    (report,) = import_folder(path, progress=False)
    return report


def reasons(report):
    return {one.file.split("/prompts/")[-1]: one.reason for one in report.skipped}


def broken_prompts():
    """What can be wrong with a prompt.json, and what is said of it."""
    return {
        "gone": (None, "there is no such file"),
        "cut": (b'{"text": "th', "it is damaged: "),
        "binary": (b"\xff\xfe\x00\xd8", "it is damaged: "),
        "deep": (b"[" * 100_000, "it is damaged: "),
        "list": (b"[1]", "expected an object, got list"),
        "textless": (b"{}", "its text is None, expected a string"),
        "empty": (b'{"text": "", "hash": "HASH"}', "empty text"),
        "surrogate": (b'{"text": "\\ud800", "hash": "HASH"}', "lone surrogate"),
        "pipe": (os.mkfifo, "it is no file"),
        "moved": (b'{"text": "moved", "hash": "other"}', "give the folder its name back"),
        "nan": (b'{"text": "t", "hash": "HASH", "meta": {"x": NaN}}', "cannot be written as JSON"),
    }


@pytest.mark.parametrize("kind", broken_prompts())
def test_a_damaged_prompt_is_listed(old, kind, assert_same_bits):
    data, words = broken_prompts()[kind]
    folder = old.prompt("tiny", "bad one", 4)
    old.held["tiny"].pop(folder.name)
    (folder / "prompt.json").unlink()
    if callable(data):
        data(folder / "prompt.json")
    elif data is not None:
        (folder / "prompt.json").write_bytes(data.replace(b"HASH", folder.name.encode()))
    report = load(old.path)
    assert report.n_stored == 3
    assert words in reasons(report)[f"{folder.name}/prompt.json"]
    assert_same_bits(report.path, old.held["tiny"])


def rewrite(path, change):
    """Let `change` edit the members of an archive, by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


FIRST = "blocks.0.attn.hook_pattern.npy"


def no_file(path, patterns):
    path.unlink()


def no_zip(path, patterns):
    path.write_bytes(b"nothing of this kind")


def cut_off(path, patterns):
    path.write_bytes(path.read_bytes()[:-200])


def flipped_bit(path, patterns):
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("blocks.1.attn.hook_pattern.npy").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 120] ^= 0x10
    path.write_bytes(bytes(data))


def flipped_value(path, patterns):
    np.savez(path, **patterns(4))  # not compressed: nothing but its checksum can tell
    data = bytearray(path.read_bytes())
    last = patterns(4)["blocks.1.attn.hook_pattern"].tobytes()[-4:]
    data[data.rindex(last, 0, data.index(b"blocks.2"))] ^= 1
    path.write_bytes(bytes(data))


def not_finite(path, patterns):
    arrays = patterns(4)
    arrays["blocks.1.attn.hook_pattern"][0, 0, 2, 1] = np.nan
    np.savez_compressed(path, **arrays)


def objects(path, patterns):
    np.savez(path, **{FIRST.removesuffix(".npy"): np.array([{"a": 1}], dtype=object)})


def integers(path, patterns):
    arrays = {k: (v > 0).astype(np.int32) for k, v in patterns(4).items()}
    np.savez(path, **arrays)


def five_dims(path, patterns):
    np.savez(path, **{k: v[None] for k, v in patterns(4).items()})


def not_square(path, patterns):
    np.savez(path, **{k: v[..., :3, :] for k, v in patterns(4).items()})


def layers_differ(path, patterns):
    np.savez(path, **(patterns(4) | patterns(5, layers=(1,))))


def nothing(path, patterns):
    np.savez(path, unrelated=np.zeros(3))


def too_long(path, patterns):
    np.savez_compressed(path, **patterns(13))


def bomb(path, patterns):
    rewrite(path, lambda members: members.update({FIRST: members[FIRST] + bytes(50_000_000)}))


def short_member(path, patterns):
    rewrite(path, lambda members: members.update({FIRST: members[FIRST][:-4]}))


def new_header(path, patterns):
    data = b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + bytes(100)
    rewrite(path, lambda members: members.update({FIRST: data}))


DAMAGE = {
    no_file: "there is no such file",
    no_zip: "it is damaged: File is not a zip file",
    cut_off: "it is damaged: ",
    flipped_bit: "it is damaged: ",
    flipped_value: "it is damaged: Bad CRC-32 for file 'blocks.1",
    not_finite: "layer 1 has values that are not finite",
    objects: "has dtype object, expected one of",
    integers: "has dtype int32, expected one of",
    five_dims: r"expected (1, n_heads, n, n)",
    not_square: r"has shape (1, 2, 3, 4), expected (1, n_heads, n, n)",
    layers_differ: "layers differ: layer 0",
    nothing: "no attention patterns in it, but 'unrelated'",
    too_long: "is of 13 tokens, more than the text and the model can have: 12",
    bomb: "unpacks to 50,000,",
    short_member: "unpacks to ",
    new_header: "has version (2, 0) of numpy's format",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_archive_is_listed(old, damage, assert_same_bits):
    folder = old.prompt("tiny", "bad", 4)
    old.held["tiny"].pop(folder.name)
    damage(folder / "activations.npz", old.patterns)
    report = load(old.path)
    assert report.n_stored == 3
    assert DAMAGE[damage] in reasons(report)[f"{folder.name}/activations.npz"]
    assert_same_bits(report.path, old.held["tiny"])


def test_repaired_later(old, assert_same_bits):
    folder = old.prompt("tiny", "bad", 4)
    whole = (folder / "activations.npz").read_bytes()
    flipped_bit(folder / "activations.npz", old.patterns)
    load(old.path)
    (folder / "activations.npz").write_bytes(whole)
    report = load(old.path)
    assert (report.n_stored, report.n_present) == (1, 3)
    assert_same_bits(report.path, old.held["tiny"])
