import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pattern_lens as pl
from pattern_lens import errors

LAYERS = (0, 2, 3)
N_HEADS = 4


def indexers(n: int):
    """Integers, slices and lists that are valid along n places."""
    ints = st.integers(-n, n - 1)
    return st.one_of(ints, st.slices(n), st.lists(ints, max_size=5))


def outer(values, dims, chosen):
    """NumPy oracle: one dim after the other."""
    for axis, dim in reversed(list(enumerate(dims))):
        if dim in chosen:
            values = values[(slice(None),) * axis + (chosen[dim],)]
    return values


@pytest.mark.parametrize("name", ["pattern", "attn_scores", "z"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_isel_is_numpy_s_indexing(stored, name, data):
    path, values = stored
    collection = pl.open_activations(path, name)
    sizes = {"layer": 3, "head": N_HEADS, "query": 8, "key": 8, "pos": 8, "d_head": 5}
    prompt_hash = list(values[name])[2]  # the longest
    expected, chosen = values[name][prompt_hash], collection.sel(prompt=[prompt_hash])
    for _ in range(2):
        dims = chosen.dims
        shape = dict(zip(dims, expected.shape, strict=True))
        usable = [dim for dim in dims if shape[dim]]
        picks = {
            d: data.draw(indexers(shape[d]), label=d) for d in usable if data.draw(st.booleans())
        }
        picks = {d: p for d, p in picks.items() if d in sizes}
        np_picks = {d: np.array(p, int) if isinstance(p, list) else p for d, p in picks.items()}
        chosen, expected = chosen.isel(**picks), outer(expected, dims, np_picks)
    array = chosen[prompt_hash]
    np.testing.assert_array_equal(array.values, expected)
    assert array.shape == expected.shape
    if array.dims:
        padded = chosen.padded().isel(prompt=0)
        np.testing.assert_array_equal(padded.values, expected)
        np.testing.assert_allclose(chosen.sum().values, [expected.sum()], rtol=1e-4, atol=1e-5)


label_slices = st.builds(
    slice,
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(1, 3),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layer=st.sampled_from([0, 3, [3, 2], slice(1, 3), slice(2, None)]),
    head=st.one_of(label_slices, st.integers(0, 3), st.lists(st.integers(0, 3), max_size=4)),
    query=label_slices,
    key=label_slices,
)
def test_sel_before_is_xarray_s_sel_after(stored, layer, head, query, key):
    patterns = pl.open_patterns(stored[0])
    labels = {"layer": layer, "head": head, "query": query, "key": key}
    chosen = patterns.sel(**labels)
    for prompt_hash, whole in patterns.items():
        xr.testing.assert_equal(
            chosen[prompt_hash].drop_attrs(), whole.load().sel(**labels).drop_attrs()
        )
        inner = whole.sel(layer=layer).sel(head=head, query=query)  # of a lazy array
        xr.testing.assert_equal(inner, whole.load().sel(layer=layer, head=head, query=query))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_indexing_a_lazy_array_is_numpy_s_indexing(stored, data):
    path, values = stored
    prompt_hash = list(values["pattern"])[2]
    array = pl.open_patterns(path).sel(head="L2H3, L0, L3H1")[prompt_hash]
    dense = values["pattern"][prompt_hash][[1, 0, 0, 0, 0, 2], [3, 0, 1, 2, 3, 1]]
    for _ in range(2):
        picks = {d: data.draw(indexers(n)) for d, n in array.sizes.items() if n}
        np_picks = {d: np.array(p, int) if isinstance(p, list) else p for d, p in picks.items()}
        array, dense = array.isel(np_picks), outer(dense, array.dims, np_picks)
    np.testing.assert_array_equal(array.values, dense)
    points = xr.DataArray([1, 0, 2], dims="point")
    pair = pl.open_patterns(path)[prompt_hash].isel(query=points, key=points)
    np.testing.assert_array_equal(
        pair.values, values["pattern"][prompt_hash][:, :, [1, 0, 2], [1, 0, 2]]
    )


def test_layers_are_chosen_by_number(stored):
    path, values = stored
    patterns = pl.open_patterns(path)
    one = next(iter(patterns))
    dense = values["pattern"][one]
    np.testing.assert_array_equal(patterns.sel(layer=2, prompt=one).values, dense[1])
    np.testing.assert_array_equal(patterns.sel(layer=-1, prompt=one).values, dense[2])
    np.testing.assert_array_equal(patterns.sel(layer=slice(-2, None), prompt=one).values, dense[1:])
    np.testing.assert_array_equal(patterns.sel(layer=[3, 0]).sel(layer=0)[one].values, dense[0])
    assert patterns.sel(layer=2, prompt=one).attrs["hook"] == "blocks.2.attn.hook_pattern"
    with pytest.raises(
        errors.OutOfRangeError, match=r"no layer 1 \(label\): expected one of 0, 2, 3"
    ):
        patterns.sel(layer=1)
    with pytest.raises(IndexError, match=r"no layer 3 \(position\): expected 0 to 2, or -3 to -1"):
        patterns.isel(layer=3)
    with pytest.raises(errors.OutOfRangeError, match=r"no head 4 .* expected 0 to 3"):
        patterns.sel(head=[0, 4])


def test_heads_by_label(stored):
    path, values = stored
    patterns = pl.open_patterns(path)
    one = list(patterns)[2]
    dense = values["pattern"][one]
    for label in ("L3H1", "l3h1", (3, 1)):
        array = patterns.sel(head=label)[one]
        assert array.dims == ("query", "key")
        assert (array.layer.item(), array["head"].item()) == (3, 1)
        np.testing.assert_array_equal(array.values, dense[2, 1])
    array = patterns.sel(head="L2-3H2, L0")[one]
    assert array.component.values.tolist() == ["L2H2", "L3H2", "L0H0", "L0H1", "L0H2", "L0H3"]
    assert array.layer.values.tolist() == [2, 3, 0, 0, 0, 0]
    assert set(array.xindexes) == {"component", "query", "key"}
    np.testing.assert_array_equal(array.values, dense[[1, 2, 0, 0, 0, 0], [2, 2, 0, 1, 2, 3]])
    assert patterns.sel(head="LxH1")[one].component.values.tolist() == ["L0H1", "L2H1", "L3H1"]
    assert patterns.sel(head=[(3, 1), "L0H2"])[one].component.values.tolist() == ["L3H1", "L0H2"]
    named = patterns.sel(head="L2-3H2, L0").sel(component=["L0H1", "L3H2"])
    np.testing.assert_array_equal(named[one].values, dense[[0, 2], [1, 2]])
    single = patterns.sel(head="x").sel(component="L3H2")[one]
    np.testing.assert_array_equal(single.values, dense[2, 2])
    assert single["head"].item() == 2


def test_heads_of_a_value_whose_heads_come_later(stored):
    path, values = stored
    z = pl.open_activations(path, "z").sel(head="L3H1, L0")
    one = list(z)[2]
    expected = values["z"][one][[2, 0, 0, 0, 0], :, [1, 0, 1, 2, 3]]
    assert z.dims == ("component", "pos", "d_head")
    np.testing.assert_array_equal(z[one].values, expected)
    np.testing.assert_allclose(
        z.isel(pos=[1, 0], prompt=[2]).sum("pos").values[0], expected[:, [1, 0]].sum(1), rtol=1e-5
    )


def test_heads_that_cannot_be_chosen(stored):
    patterns = pl.open_patterns(stored[0])
    with pytest.raises(
        errors.OutOfRangeError, match="no head 'L1H0': stored are layers one of 0, 2, 3"
    ):
        patterns.sel(head="L1H0")
    with pytest.raises(errors.HeadSelectionError, match=r"'mean' .*is not a head"):
        patterns.sel(head="mean")
    with pytest.raises(
        errors.DimensionError, match="cannot choose heads by label 'L0H0': no dim 'layer'"
    ):
        patterns.sel(layer=0, head="L0H0")
    with pytest.raises(errors.DimensionError, match="after this operation: choose them before"):
        (patterns - patterns).sel(head="L0H0")
    with pytest.raises(errors.OutOfRangeError, match="no component 'L9H9': expected one of L0H0"):
        patterns.sel(head="L0").sel(component="L9H9")


def test_what_cannot_be_an_indexer(stored):
    patterns = pl.open_patterns(stored[0])
    with pytest.raises(
        errors.DimensionError, match="no dim 'pos': expected one of 'prompt', 'layer', 'head'"
    ):
        patterns.isel(pos=0)
    with pytest.raises(
        errors.DimensionError, match="no dim 'layer': expected one of 'prompt', 'head'"
    ):
        patterns.sel(layer=0).sel(layer=0)
    for wrong in (1.5, True, "a", [0.5], [[1]]):
        with pytest.raises(TypeError, match="cannot choose query by"):
            patterns.isel(query=wrong)
    with pytest.raises(TypeError, match=r"cannot choose query by 0\.5: expected an integer"):
        patterns.isel(query=slice(0.5, None))
    with pytest.raises(
        errors.OutOfRangeError, match="a mask of 2 values does not fit 'head': expected 4"
    ):
        patterns.isel(head=[True, False])
    assert patterns.isel(head=[True, False, False, True]).sizes["head"] == 2


def test_a_prompt_that_is_too_short_is_named(stored):
    patterns = pl.open_patterns(stored[0])
    short = list(patterns)[1]
    chosen = patterns.isel(query=5)
    assert chosen.sizes == {"layer": 3, "head": 4, "key": (1, 8)}
    assert chosen[list(patterns)[2]].dims == ("layer", "head", "key")
    with pytest.raises(
        errors.OutOfRangeError,
        match=rf"prompt '{short}' \(.*\): no query 5 \(position\): expected 0 to 2",
    ):
        chosen[short]
    with pytest.raises(errors.OutOfRangeError, match=r"no query 5"):
        chosen.mean("key")
    assert patterns.sel(query=slice(5, 7))[short].sizes["query"] == 0
    last = patterns.isel(query=-1).padded()
    assert last.dims == ("prompt", "layer", "head", "key")


def test_prompts_are_chosen_by_hash_or_place(stored):
    patterns = pl.open_patterns(stored[0])
    hashes = list(patterns)
    assert list(patterns.sel(prompt=[hashes[3], hashes[0]])) == [hashes[3], hashes[0]]
    assert list(patterns.isel(prompt=slice(None, None, -2))) == hashes[::-2]
    assert list(patterns.sel(prompt=patterns.isel(prompt=[4, 2]))) == [hashes[4], hashes[2]]
    assert list(patterns.sel(prompt=patterns.mean().prompt[1:3])) == hashes[1:3]
    assert patterns.isel(prompt=-1).attrs["hash"] == hashes[-1]
    assert list(patterns.sel(prompt=[])) == []
    with pytest.raises(errors.OutOfRangeError, match="no prompt 6"):
        patterns.isel(prompt=6)
    with pytest.raises(errors.PromptError, match="cannot choose prompts by 3: expected a hash"):
        patterns.sel(prompt=3)
    with pytest.raises(errors.UnknownPromptError, match="no prompt 'abc'"):
        patterns.sel(prompt=["abc"])
