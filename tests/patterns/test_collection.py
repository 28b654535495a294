import pickle

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens import errors
from pattern_lens.names import ACTIVATIONS
from pattern_lens.store import chunks as store_chunks
from pattern_lens.testing import write_random_file

NAMES = ("pattern", "attn_scores", "resid_post", "z")


@pytest.fixture
def patterns(stored):
    with pl.open_patterns(stored[0]) as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunks", [None, {}, "auto", {"layer": 2}])
def test_every_prompt_is_what_was_stored(stored, name, chunks):
    path, values = stored
    with pl.open_activations(path, name, chunks=chunks) as found:
        assert list(found) == list(values[name])
        assert found.dims == ("layer", *ACTIVATIONS[name].dims)
        for prompt_hash, array in found.items():
            assert (array.chunks is None) == (chunks is None)
            np.testing.assert_array_equal(array.values, values[name][prompt_hash])


def test_chunks_have_xarray_s_meaning(stored):
    one = next(iter(stored[1]["pattern"]))
    assert pl.open_patterns(stored[0], chunks={})[one].chunksizes["layer"] == (1, 1, 1)
    assert pl.open_patterns(stored[0], chunks={"layer": 2, "prompt": 9})[one].chunks[0] == (2, 1)


def test_labels(stored, patterns):
    prompt_hash = list(patterns)[2]
    array = patterns[prompt_hash]
    assert array.layer.values.tolist() == [0, 2, 3]
    assert array["query"].values.tolist() == array["key"].values.tolist() == list(range(8))
    assert set(array.xindexes) == {"layer", "head", "query", "key"}
    tokens = array.query_token.values.tolist()
    assert tokens[0] == "<bos>"
    assert "".join(tokens[1:]) + " #0.2" == array.attrs["text"]
    assert (
        tokens
        == array.key_token.values.tolist()
        == array.isel(key=slice(None)).key_token.values.tolist()
    )
    attrs = {k: array.attrs[k] for k in ("model", "hash", "n_ctx", "truncated")}
    assert attrs == {"model": "random", "hash": prompt_hash, "n_ctx": 8, "truncated": True}
    assert array.attrs["hooks"] == [f"blocks.{i}.attn.hook_pattern" for i in (0, 2, 3)]


def test_tokens_follow_a_choice(patterns):
    prompt_hash = list(patterns)[2]
    whole = patterns[prompt_hash]
    part = patterns.isel(query=[4, 1], key=-2)[prompt_hash]
    assert part.query_token.values.tolist() == whole.query_token.values[[4, 1]].tolist()
    assert part.key_token.item() == whole.key_token.values[-2]
    assert part.key.item() == 6
    assert part.sel(query=1).query_token.item() == whole.query_token.values[1]


def test_pos_carries_tokens(stored):
    array = next(iter(pl.open_activations(stored[0], "resid_post").values()))
    assert array.token.dims == ("pos",)
    assert array.token.values[0] == "<bos>"


def test_coordinates_are_not_shared_between_arrays(patterns):
    one, other = list(patterns.values())[:2]
    one["layer"].attrs["note"] = "mine"
    one.coords["layer"].variable.attrs["note"] = "mine"
    assert other["layer"].attrs == {}
    assert patterns[next(iter(patterns))]["layer"].attrs == {}


def test_one_head_reads_the_chunks_that_hold_it(tmp_path, monkeypatch):
    path = tmp_path / "long.h5"
    write_random_file(path, n_tokens=(200, 150), layers=(0, 1, 2), n_heads=2, names=("pattern",))
    read = []
    restore = store_chunks._restore

    def counting(dataset, layout, offset, rows):
        read.append(offset)
        return restore(dataset, layout, offset, rows)

    monkeypatch.setattr(store_chunks, "_restore", counting)
    with pl.open_patterns(path) as patterns:
        first, second = patterns
        array = patterns[first]
        chosen = patterns.sel(layer=1, head=1)
        one = chosen[first]
        repr(one)
        assert read == []
        _ = one.values
        assert {offset[0] for offset in read} == {1}
        assert len(read) == -(-200 * 201 // 2 // 4096) == 5
        read.clear()
        _ = array.sel(layer=2, head=0).isel(query=slice(0, 10)).values
        assert [offset[0] for offset in read] == [2]
        read.clear()
        _ = patterns.isel(query=slice(-1, None), layer=[0])[second].values
        assert [offset[0] for offset in read] == [0]
        read.clear()
        _ = chosen.padded().isel(prompt=1).values
        assert {offset[0] for offset in read} == {1}


def test_unknown_prompts(patterns):
    near = next(iter(patterns))[:-1] + "_"
    with pytest.raises(errors.UnknownPromptError, match=f"nearest: {next(iter(patterns))}"):
        patterns[near]
    with pytest.raises(KeyError, match=r"isel\(prompt=3\) takes positions"):
        patterns[3]
    some = patterns.isel(prompt=[0, 1])
    with pytest.raises(errors.UnknownPromptError, match="among the 2 chosen ones"):
        some[list(patterns)[2]]
    assert next(iter(patterns)) in some
    assert list(patterns)[2] not in some
    assert 3 not in patterns


def test_an_activation_that_only_other_prompts_have(tmp_path):
    path = tmp_path / "two.h5"
    write_random_file(path, names=("pattern",), n_tokens=(3, 4))
    write_random_file(path, names=("z", "pattern"), n_tokens=(5,), seed=1)
    with pl.open_run(path) as run:
        first = next(iter(run.patterns))
        assert len(run.activations["z"]) == 1
        with pytest.raises(errors.UnknownPromptError, match=f"no 'z' of prompt '{first}'"):
            run.activations["z"][first]


def test_table_of_prompts(stored, patterns):
    table = patterns.prompts
    assert table.index.tolist() == list(patterns)
    assert table["n_ctx"].tolist() == [5, 3, 8, 3, 5, 1]
    assert table["n_tokens"].tolist() == [4, 2, 7, 2, 4, 0]
    assert table["truncated"].tolist() == [False, False, True, False, False, False]
    assert table["number"].tolist()[1::2] == [1, 3, 5]
    assert patterns.isel(prompt=slice(2, 4)).prompts.index.tolist() == list(patterns)[2:4]
    long = patterns.sel(prompt=table.query("n_tokens > 3").index)
    assert list(long) == [list(patterns)[i] for i in (0, 2, 4)]


def test_properties(patterns):
    assert patterns.sizes == {"layer": 3, "head": 4, "query": (1, 8), "key": (1, 8)}
    assert patterns.isel(query=slice(2, 5), key=0).sizes == {"layer": 3, "head": 4, "query": (0, 3)}
    assert (patterns.layers, patterns.sel(layer=2).layers) == ((0, 2, 3), (2,))
    assert (patterns.n_prompts, patterns.name, patterns.model["name"]) == (6, "pattern", "random")


@pytest.mark.parametrize("chunks", [None, {}])
def test_pickles_by_path(stored, chunks):
    patterns = pl.open_patterns(stored[0], chunks=chunks)
    part = (patterns.sel(head="L2H1, L0").isel(prompt=[4, 1]) - 0.5).where(
        patterns.isel(prompt=[1, 4]).mean() > 0
    )
    again = pickle.loads(pickle.dumps(part))  # noqa: S301
    assert list(again) == list(part)
    xr.testing.assert_identical(again[list(part)[1]], part[list(part)[1]])
    one = patterns.sel(layer=2)[list(patterns)[2]]
    payload = pickle.dumps(one)
    assert len(payload) < 6000
    xr.testing.assert_identical(pickle.loads(payload), one)  # noqa: S301


def test_a_pickle_of_a_replaced_file_says_so(tmp_path):
    path = tmp_path / "a.h5"
    write_random_file(path)
    payload = pickle.dumps(pl.open_patterns(path))
    path.unlink()
    write_random_file(path)
    with pytest.raises(errors.ReplacedFileError, match="the file was replaced"):
        pickle.loads(payload)  # noqa: S301


def test_refresh_while_a_writer_appends(tmp_path):
    path = tmp_path / "grows.h5"
    first = write_random_file(path, n_tokens=(3, 6), names=("pattern", "z"))
    with pl.open_run(path) as run:
        patterns, chosen = run.patterns, run.patterns.isel(prompt=[1], layer=0)
        before = chosen.mean()
        more = write_random_file(path, n_tokens=(4, 9), names=("pattern", "z"), seed=7)
        assert len(patterns) == len(run.prompts) == 2
        assert len(patterns.sel(layer=0).refresh()) == len(patterns) == 4
        assert run.refresh() is run
        assert len(run.activations["z"]) == len(run.prompts) == 4
        xr.testing.assert_identical(chosen.mean(), before)
        for prompt_hash, values in (first["pattern"] | more["pattern"]).items():
            np.testing.assert_array_equal(patterns[prompt_hash].values, values)
        assert patterns.sizes["query"] == (3, 9)


def test_closed(stored):
    patterns = pl.open_patterns(stored[0])
    array = patterns.isel(prompt=0)
    patterns.close()
    with pytest.raises(ValueError, match="was closed"):
        _ = array.values
    assert "closed" in repr(patterns)
    assert "closed" in patterns._repr_html_()


def test_names_and_hooks_are_understood(stored):
    for name in ("attn", "pattern", "blocks.3.attn.hook_pattern"):
        assert isinstance(pl.open_activations(stored[0], name), pl.Patterns)
    with pytest.raises(
        errors.UnknownActivationError, match=r"it holds attn_scores, pattern, resid_post, z"
    ):
        pl.open_activations(stored[0], "mlp_out")


def test_run(stored):
    with pl.open_run(stored[0]) as run:
        assert list(run.activations) == sorted(NAMES)
        assert "blocks.0.attn.hook_z" in run.activations
        assert run.path == stored[0]
        assert run.model["name"] == "random"
        assert len(run.prompts) == 6
        assert "Run 'random' · 6 prompts · random.h5" in repr(run)
        assert "resid_post" in repr(run.activations)
        assert "<td style='text-align:left'>z</td>" in run._repr_html_()
        assert run.patterns is run.activations["pattern"]
    assert "closed" in repr(run)
    assert "closed" in run._repr_html_()


def test_display(patterns):
    assert repr(patterns).splitlines()[0] == (
        "<Patterns 'random' pattern · 6 prompts × (layer 3, head 4, query 1–8, key 1–8) float32 · random.h5>"  # noqa: RUF001
    )
    assert repr(patterns).splitlines()[-1] == "  … 1 more"
    assert "query ?" in repr((patterns - patterns).isel(query=slice(1, None)))


def test_text_from_a_file_is_escaped(tmp_path):
    from pattern_lens.store.header import Header
    from pattern_lens.store.prompt_table import PromptRecord
    from pattern_lens.store.writer import Block, StoreWriter
    from pattern_lens.testing import _random_layout

    path = tmp_path / "evil.h5"
    layout = _random_layout("pattern", (0,), 1, "float32")
    evil = "<script>alert('x')</script>"
    with StoreWriter(path, Header({"name": "<i>model</i>"}), [layout]) as writer:
        record = PromptRecord("<b>", evil, np.zeros(1, np.int32), {"text": 1, "meta_text": 2})
        writer.commit([record], {"pattern": Block([(1, 1)], np.ones((1, 1, 1), "f4"))})
    with pl.open_run(path) as run:
        html = run.patterns._repr_html_() + run._repr_html_()
        assert "<script" not in html
        assert "<i>" not in html
        assert "&lt;script&gt;" in html
        assert evil in repr(run.patterns)
        assert run.prompts.columns.tolist()[-2:] == ["meta_text", "meta_meta_text"]


def test_a_file_without_prompts(tmp_path):
    path = tmp_path / "empty.h5"
    write_random_file(path, n_tokens=())
    with pl.open_patterns(path) as patterns:
        assert len(patterns) == 0
        assert patterns.prompts.empty
        assert patterns.mean(["query", "key"]).shape == (0, 3, 4)
        assert patterns.padded().shape == (0, 3, 4, 0, 0)
        assert "0 prompts" in repr(patterns)
