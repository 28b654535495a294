"""TransformerLens' patching, run on tiny models: what it gives is labelled right, and stored with the prompt."""

import numpy as np
import pytest
import torch
import xarray as xr

import pattern_lens as pl
from pattern_lens.errors import (
    DimensionError,
    PromptError,
    ResultMismatchError,
    UnknownPromptError,
)
from pattern_lens.models import load_model
from pattern_lens.names import ACTIVATIONS
from pattern_lens.store.verify import verify
from pattern_lens.testing import tiny_model
from pattern_lens.tracing.patching import (
    PATCHING_DIMS,
    label_attribution_patching,
    label_patching,
    store_patching,
)

CLEAN, CORRUPTED = "a cat sat on", "the dog lay on"
TARGET, DISTRACTOR = 7, 3


@pytest.fixture(scope="module")
def run():
    """A model, both prompts' tokens, and the clean cache."""
    return Patched("gpt2")


@pytest.fixture(scope="module")
def grouped():
    return Patched("llama")


class Patched:
    def __init__(self, kind):
        self.model = tiny_model(kind, n_layers=2)
        self.clean, self.corrupted = (
            self.model.to_tokens(text, prepend_bos=True)[:, :6] for text in (CLEAN, CORRUPTED)
        )
        with torch.no_grad():
            _, self.cache = self.model.run_with_cache(self.clean)
            _, self.corrupted_cache = self.model.run_with_cache(self.corrupted)

    def metric(self, logits):
        return (logits[:, -1, TARGET] - logits[:, -1, DISTRACTOR]).mean()

    def patch(self, name, **options):
        from transformer_lens import patching

        with torch.no_grad():
            return getattr(patching, f"get_act_patch_{name}")(
                self.model, self.corrupted, self.cache, self.metric, **options
            )

    def by_hand(self, name, layer, change):
        """The metric of the corrupted prompt with one activation changed: `change(values, clean values)`."""
        hook_name = ACTIVATIONS[name].hook(layer)

        def hook(values, hook):
            values = values.clone()
            change(values, self.cache[hook_name])
            return values

        with torch.no_grad():
            return float(
                self.metric(
                    self.model.run_with_hooks(self.corrupted, fwd_hooks=[(hook_name, hook)])
                )
            )


def test_resid_pre_is_what_a_loop_by_hand_gives(run):
    found = label_patching(run.patch("resid_pre"), "resid_pre", model=run.model, tokens=run.clean)
    assert found.dims == ("layer", "pos")
    assert found.shape == (2, 6)
    for layer in range(2):
        for pos in range(6):

            def change(values, clean, pos=pos):
                values[:, pos] = clean[:, pos]

            expected = run.by_hand("resid_pre", layer, change)
            assert float(found.sel(layer=layer, pos=pos)) == pytest.approx(expected, abs=1e-5)
    assert found.token.values.tolist()[1:3] == run.model.to_str_tokens(run.clean)[1:3]
    assert len({*np.round(found.values.ravel(), 4)}) > 6


def test_a_cell_of_a_pattern_is_what_a_loop_by_hand_gives(run):
    from transformer_lens import patching

    name = "attn_head_pattern_dest_src_pos"
    function = patching.get_act_patch_attn_head_pattern_dest_src_pos
    found = label_patching(run.patch(name), function, model=load_model(run.model), tokens=run.clean)
    assert found.dims == ("layer", "head", "query", "key")
    assert found.attrs["function"].endswith(f"patching.get_act_patch_{name}")
    for layer, head, query, key in [(0, 1, 4, 2), (1, 3, 2, 0), (1, 0, 3, 3), (0, 2, 1, 3)]:

        def change(values, clean, at=(slice(None), head, query, key)):
            values[at] = clean[at]

        expected = run.by_hand("pattern", layer, change)
        cell = found.sel(layer=layer, head=head, query=query, key=key)
        assert float(cell) == pytest.approx(expected, abs=1e-5)
    assert found.query_token.dims == ("query",)
    assert found.key_token.values.tolist() == found.query_token.values.tolist()


def test_every_function_of_transformer_lens_is_known():
    from transformer_lens import patching

    theirs = {n.removeprefix("get_act_patch_") for n in vars(patching) if n.startswith("get_act_")}
    assert theirs == {*PATCHING_DIMS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in PATCHING_DIMS if not k.startswith("direct_path")])
@pytest.mark.parametrize("family", ["run", "grouped"])
def test_every_function_fits_its_dims(kind, family, request):
    run = request.getfixturevalue(family)
    result = run.patch(kind)
    found = label_patching(result, kind, model=run.model, tokens=run.clean)
    np.testing.assert_array_equal(np.nan_to_num(found.values), result.numpy())
    is_grouped = family == "grouped" and kind.startswith(("attn_head_k", "attn_head_v"))
    assert ("kv_head" in found.dims) == is_grouped


def test_components_are_transformer_lens_s(run):
    found = label_patching(run.patch("block_every"), "block_every")
    assert found.dims == ("component", "layer", "pos")
    alone = label_patching(run.patch("mlp_out"), "get_act_patch_mlp_out")
    np.testing.assert_allclose(found.sel(component="mlp_out"), alone)


def test_heads_that_only_fill_up_are_nan(grouped):
    kind = "attn_head_all_pos_every"
    found = label_patching(grouped.patch(kind), kind, model=grouped.model)
    is_missing = found.isnull().any("layer")
    assert is_missing.sel(component="k").values.tolist() == [False, False, True, True]
    assert is_missing.sel(component=["out", "q", "pattern"]).sum() == 0
    alone = label_patching(
        grouped.patch("attn_head_v_all_pos"), "attn_head_v_all_pos", model=grouped.model
    )
    np.testing.assert_allclose(found.sel(component="v").values[:, :2], alone.values)


def test_each_prompt_has_its_own_values(run):
    def metric(logits):
        return logits[:, -1, TARGET] - logits[:, -1, DISTRACTOR]

    from transformer_lens import patching

    both = torch.cat([run.corrupted, run.clean])
    with torch.no_grad():
        _, cache = run.model.run_with_cache(torch.cat([run.clean, run.clean]))
        result = patching.get_act_patch_mlp_out(
            run.model, both, cache, metric, reduce="none", baseline=True
        )
    found = label_patching(result, "mlp_out", model=run.model)
    assert found.dims == ("prompt", "layer", "pos")
    np.testing.assert_allclose(found[0], run.patch("mlp_out"), atol=1e-5)
    assert float(found[1].std()) < 1e-5  # the clean prompt is what was patched in
    effect = label_patching(result.effect(), "mlp_out")
    np.testing.assert_allclose(effect, found - result.baseline.numpy()[:, None, None])


def test_paths_to_layers_before_the_source_are_nan(run):
    from transformer_lens import patching

    with torch.no_grad():
        result = patching.get_act_patch_direct_path(
            run.model,
            run.corrupted,
            run.cache,
            run.corrupted_cache,
            run.metric,
            0,
            2,
            verbose=False,
        )
        every = patching.get_act_patch_direct_path_all_sources(
            run.model, run.corrupted, run.cache, run.corrupted_cache, run.metric, verbose=False
        )
    found = label_patching(result, "direct_path", model=run.model, source=(0, 2))
    assert found.isnull().all("head").values.tolist() == [True, False]
    assert found.attrs["source"] == "L0H2"
    table = label_patching(every, patching.get_act_patch_direct_path_all_sources)
    assert table.dims == ("source", "layer", "head")
    np.testing.assert_allclose(table.sel(source="L0H2"), found)
    assert table.sel(source="L1H0").isnull().all()


def test_attribution_patching(run):
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    result = attribution_patch(run.model, run.clean, run.corrupted, run.metric)
    found = label_attribution_patching(result, model=run.model, tokens=run.clean)
    assert {n: a.dims for n, a in found.items()} == {
        "embed": ("pos",),
        "attn_head_out": ("layer", "pos", "head"),
        "mlp_out": ("layer", "pos"),
    }
    for node, score in result.node_scores.items():
        at = {"pos": node.position, "layer": node.layer, "head": node.head}
        at = {dim: i for dim, i in at.items() if i is not None}
        assert float(found[node.kind].sel(at)) == score
    assert found.token.size == 6
    edges = attribution_patch(
        run.model, run.clean, run.corrupted, run.metric, EdgeAttributionConfig(granularity="edge")
    )
    table = label_attribution_patching(edges).edges
    assert table.dims == ("pos", "source", "target")
    assert table.notnull().sum() == len(edges.edge_scores)
    out = table.sel(source="L0H1").sum("target")
    np.testing.assert_allclose(out, found.attn_head_out.sel(layer=0, head=1), atol=1e-5)
    assert np.isnan(table.sel(source="1_mlp_out", target="1_mlp_in")).all()
    assert float(table.sel(pos=2, source="embed", target="L1H0.k")) != 0


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("result", "kind", "options", "words"),
    [
        (zeros(2, 5), "resid_per", {}, r"no patching function 'resid_per': expected resid_pre"),
        (zeros(2, 5), print, {}, r"no patching function '<built-in function print>'"),
        (zeros(5), "resid_pre", {}, r"shape \(5,\) as get_act_patch_resid_pre: expected \(layer, pos\)"),
        (zeros(4, 2, 5), "block_every", {}, r"expected \(component 3, layer, pos\)"),
        (zeros(2, 4, 5, 6), "attn_head_pattern_dest_src_pos", {}, r"query, key 5\)"),
        (zeros(2, 5), "mlp_out", {"tokens": ["a"]}, r"expected \(layer, pos 1\)"),
        (zeros(2, 1), "mlp_out", {"tokens": [3]}, "tokens are ids: give the model"),
        (zeros(2, 1), "mlp_out", {"tokens": [["a"], ["b"]]}, r"tokens have the shape \(2, 1\)"),
        (zeros(2, 4), "direct_path", {}, "direct_path needs the"),
        (zeros(2, 4), "mlp_out", {"source": (0, 1)}, "nothing else has one"),
        (zeros(2, 4, 2), "direct_path_all_sources", {}, r"gives \(layer, head, layer, head\)"),
        ("nothing", "mlp_out", {}, "the result is a str, expected numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_labelled_is_said(result, kind, options, words):
    with pytest.raises(DimensionError, match=words):
        label_patching(result, kind, **options)


def test_a_result_of_another_model_is_refused(run, grouped):
    with pytest.raises(DimensionError, match=r"expected \(layer 2, kv_head 2\)"):
        label_patching(zeros(2, 4), "attn_head_v_all_pos", model=grouped.model)
    with pytest.raises(
        DimensionError, match="the result is a Tensor, expected an AttributionResult"
    ):
        label_attribution_patching(run.clean)


def test_several_metrics_are_labelled_one_by_one(run):
    from transformer_lens import patching

    with torch.no_grad():
        both = {"diff": run.metric, "minus": lambda logits: -run.metric(logits)}
        result = patching.get_act_patch_mlp_out(run.model, run.corrupted, run.cache, both)
    with pytest.raises(DimensionError, match=r"several metrics, 'diff', 'minus': label one"):
        label_patching(result, "mlp_out")
    one, other = (label_patching(result[name], "mlp_out") for name in both)
    np.testing.assert_allclose(one, -other)


# --- storing -------------------------------------------------------------------------------------


@pytest.fixture
def file(run, tmp_path):
    path = tmp_path / "own.h5"
    texts = [CLEAN, CORRUPTED, "one two three four"]
    pl.capture(load_model(run.model), texts, path, names="pattern", progress=False)
    return path


def of_prompts(file):
    with pl.open_run(file) as found:
        return list(found.prompts.index), found.prompts.n_ctx.tolist()


def values_of(n, *, dims=("layer", "pos"), shift=0.0):
    shape = [n if dim == "pos" else 2 for dim in dims]
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + np.float32(shift)
    return label_patching(array, "resid_pre", tokens=["t"] * n)


def test_results_are_stored_with_their_prompt(file):
    hashes, n_ctx = of_prompts(file)
    for i in (0, 2):
        stored = store_patching(
            file,
            "patch",
            values_of(n_ctx[i], shift=i),
            hashes[i],
            corrupted=np.arange(n_ctx[i]) + i,
            metric="logit difference",
        )
        assert stored.dims == ("prompt", "layer", "pos")
    with pl.open_run(file) as found:
        results = found.results
        assert results.prompt.values.tolist() == [hashes[0], hashes[2]]
        for i in (0, 2):
            own = results.patch.sel(prompt=hashes[i], pos=slice(0, n_ctx[i] - 1))
            np.testing.assert_array_equal(own, values_of(n_ctx[i], shift=i))
            ids = results["patch.corrupted_token_id"].sel(prompt=hashes[i])
            assert ids[: n_ctx[i]].values.tolist() == [*range(i, n_ctx[i] + i)]
        assert results.patch.attrs["long_name"] == "metric with resid_pre patched"
    assert verify(file).ok


def test_the_newer_values_of_a_prompt_hold(file):
    hashes, n_ctx = of_prompts(file)
    for shift in (0, 100):
        array, ids = values_of(n_ctx[0], shift=shift), np.arange(n_ctx[0])
        store_patching(file, "patch", array, hashes[0], corrupted=ids, metric="m")
    with pl.open_run(file) as found:
        assert float(found.results.patch[0, 0, 0]) == 100


def test_several_prompts_at_once(file):
    hashes, n_ctx = of_prompts(file)
    same = [h for h, n in zip(hashes, n_ctx, strict=True) if n == n_ctx[0]]
    array = xr.concat([values_of(n_ctx[0], shift=i) for i in range(len(same))], "prompt")
    ids = torch.arange(len(same) * n_ctx[0]).reshape(len(same), -1)
    stored = store_patching(file, "patch", array, same, corrupted=ids, metric="m")
    np.testing.assert_array_equal(stored, array)


def test_another_metric_needs_force(file):
    hashes, n_ctx = of_prompts(file)
    options = {"corrupted": np.arange(n_ctx[0])}
    array = values_of(n_ctx[0])
    store_patching(file, "patch", array, hashes[0], metric="m", **options)
    with pytest.raises(ResultMismatchError, match=r"holds results 'patch' of .*'metric': 'm'"):
        store_patching(file, "patch", array, hashes[0], metric="other", **options)
    renamed = array.assign_coords(layer=[0, 1]).isel(layer=[0])
    store_patching(file, "patch", renamed, hashes[0], metric="other", force=True, **options)
    with pl.open_run(file) as found:
        assert found.results.patch.sizes["layer"] == 1


def test_what_does_not_belong_to_the_prompt_is_refused(file):
    hashes, n_ctx = of_prompts(file)
    ids, array = np.arange(n_ctx[0]), values_of(n_ctx[0])
    with pytest.raises(UnknownPromptError, match="no prompt 'none'"):
        store_patching(file, "patch", array, "none", corrupted=ids, metric="m")
    with pytest.raises(PromptError, match=rf"it has {n_ctx[0]} tokens in .* has {n_ctx[0] + 1}"):
        store_patching(file, "patch", values_of(n_ctx[0] + 1), hashes[0], corrupted=ids, metric="m")
    with pytest.raises(PromptError, match="values of 1 prompts, and 2 were named"):
        store_patching(file, "patch", array, hashes[:2], corrupted=ids, metric="m")
    with pytest.raises(PromptError, match=r"corrupted= has the shape .* expected token ids of 1"):
        store_patching(file, "patch", array, hashes[0], corrupted=ids * 0.5, metric="m")
    with pytest.raises(ResultMismatchError, match="under the name 'a/b'"):
        store_patching(file, "a/b", array, hashes[0], corrupted=ids, metric="m")
    with pl.open_run(file) as found:
        assert not [*found.results]


def test_edges_are_stored_with_their_labels(run, file):
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    hashes, n_ctx = of_prompts(file)
    clean, corrupted = (run.model.to_tokens(t, prepend_bos=True)[:, :5] for t in (CLEAN, CORRUPTED))
    config = EdgeAttributionConfig(granularity="edge")
    result = attribution_patch(run.model, clean, corrupted, run.metric, config)
    edges = label_attribution_patching(result).edges
    edges = edges.pad(pos=(0, n_ctx[0] - 5)).assign_coords(pos=range(n_ctx[0]))
    store_patching(file, "edges", edges, hashes[0], corrupted=np.zeros(n_ctx[0], int), metric="m")
    with pl.open_run(file) as found:
        stored = found.results.edges[0]
        assert stored.sel(source="L0H1", target="logits").notnull().sum() == 5
        np.testing.assert_array_equal(stored, edges)
