import numpy as np
import pytest
import xarray as xr

from pattern_lens.patterns.engine import PatternLensEntrypoint


def test_padded_dataset(stored):
    path, values = stored
    with xr.open_dataset(path, engine="pattern_lens") as dataset:
        assert dict(dataset.sizes) == {"prompt": 6, "layer": 3, "head": 4, "query": 8, "key": 8}
        assert dataset.attrs["model"] == "random"
        np.testing.assert_array_equal(
            dataset.pattern.isel(prompt=1, query=slice(3), key=slice(3)),
            list(values["pattern"].values())[1],
        )


def test_one_prompt(stored):
    path, values = stored
    one = list(values["z"])[2]
    with xr.open_dataset(
        path, engine="pattern_lens", activation="z", prompt=one, drop_variables="token"
    ) as found:
        assert "token" not in found.coords
        np.testing.assert_array_equal(found.z.sel(layer=3).values, values["z"][one][2])
    with pytest.raises(ValueError, match="was closed"):
        _ = xr.open_dataset(path, engine="pattern_lens", prompt=one, cache=False).pipe(
            lambda d: (d.close(), d.pattern.values)
        )


def test_chunks(stored):
    path, values = stored
    one = list(values["pattern"])[2]
    with xr.open_dataset(path, engine="pattern_lens", prompt=one, chunks={}) as found:
        assert found.chunksizes["layer"] == (1, 1, 1)
        np.testing.assert_array_equal(found.pattern.values, values["pattern"][one])


def test_datatree(stored):
    path, values = stored
    with xr.open_datatree(path, engine="pattern_lens", drop_variables=["query_token"]) as tree:
        assert list(tree.children) == list(values["pattern"])
        one = list(values["pattern"])[2]
        np.testing.assert_array_equal(tree[one]["pattern"].values, values["pattern"][one])
        assert "query_token" not in tree[one].coords


def test_guess(stored, tmp_path):
    entry = PatternLensEntrypoint()
    assert entry.guess_can_open(stored[0])
    assert xr.open_dataset(stored[0]).sizes["prompt"] == 6
    other = tmp_path / "other.h5"
    other.write_bytes(b"text")
    assert not entry.guess_can_open(other)
    assert not entry.guess_can_open(tmp_path / "none.h5")
    assert not entry.guess_can_open(3)
    assert not entry.guess_can_open(object())
