"""The analyses as methods of a file: one prompt, several, all; lazy, stored, on dask; against live caches."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens import residual
from pattern_lens.errors import (
    AnswerTokenError,
    DimensionError,
    ModelMismatchError,
    OutOfRangeError,
    PromptError,
    RawWeightsError,
    ResidualError,
    UnknownActivationError,
    UnknownPromptError,
    WeightsMissingError,
)
from pattern_lens.testing import tiny_model

TEXTS = [
    "the cat sat on the mat",
    "hello world, hello there",
    "the cat sat on the log",
    "one two three four five",
]
KINDS = ["gpt2", "llama", "neox", "attn_only"]


@pytest.fixture(scope="session")
def captured(tmp_path_factory):
    """File and live model by kind; the files are not to be written to."""
    made = {}

    def make(kind="gpt2", mode="compatibility"):
        if (kind, mode) not in made:
            model = tiny_model(kind)
            if mode == "compatibility":
                model.enable_compatibility_mode()
            path = tmp_path_factory.mktemp("residual") / f"{kind}-{mode}.h5"
            names = ["residual"] if kind == "attn_only" else ["residual", "mlp_post"]
            pl.capture(model, TEXTS, path, names=names, progress=False)
            made[kind, mode] = path, model
        return made[kind, mode]

    return make


@pytest.fixture
def file(captured):
    with pl.open_run(captured()[0]) as run:
        yield run


def cache_of(model, text):
    bos = model.cfg.default_prepend_bos
    return model.run_with_cache(model.to_tokens(text, prepend_bos=bos))


def close(found, expected):
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


CALLS = {
    "accumulated_resid": {"apply_ln": True},
    "decompose_resid": {"layer": 2},
    "stack_head_results": {"incl_remainder": True, "apply_ln": True},
    "stack_neuron_results": {"layer": 2, "incl_remainder": True},
    "get_full_resid_decomposition": {"expand_neurons": False},
}


def of_all_kinds(names, of_neurons):
    """Pairs of kind and name; a model of attention alone has no neurons, see test_refusals."""
    return [(kind, n) for n in names for kind in KINDS if (kind, n) != ("attn_only", of_neurons)]


@pytest.mark.parametrize(("kind", "call"), of_all_kinds(CALLS, "stack_neuron_results"))
def test_equals_a_live_cache(captured, kind, call):
    path, model = captured(kind)
    with pl.open_run(path) as run:
        every = getattr(run, call)(**CALLS[call])
        assert len(every) == len(TEXTS)
        for prompt_hash, text in run.prompts["text"].items():
            expected, labels = getattr(cache_of(model, text)[1], call)(
                **CALLS[call], return_labels=True
            )
            found = getattr(run, call)(**CALLS[call], prompt=prompt_hash)
            assert found["component"].values.tolist() == labels
            assert found.attrs["text"] == text
            close(found, expected[:, 0])
            xr.testing.assert_identical(every[prompt_hash], found)


def test_the_other_methods_equal_a_live_cache(captured):
    path, model = captured()
    with pl.open_run(path) as run:
        prompt_hash, text = next(iter(run.prompts["text"].items()))
        live = cache_of(model, text)[1]
        live.compute_head_results()
        heads = run.compute_head_results(prompt=prompt_hash)
        assert heads.dims == ("layer", "pos", "head", "d_model")
        close(heads.sel(layer=1), live["result", 1][0])
        close(run.compute_head_results()[prompt_hash], live.stack_activation("result")[:, 0])
        close(run.stack_activation("z", 2, prompt=prompt_hash), live.stack_activation("z", 2)[:, 0])
        assert run.stack_activation("z").dims == ("layer", "pos", "head", "d_head")
        neurons = run.get_neuron_results(-1, neurons=[3, 1], pos=2, prompt=prompt_hash)
        close(neurons, live.get_neuron_results(-1, neuron_slice=[3, 1], pos_slice=2)[0])
        stack = run.decompose_resid(prompt=prompt_hash)
        expected = live.decompose_resid()
        close(run.apply_ln_to_stack(stack), live.apply_ln_to_stack(expected)[:, 0])
        close(run.logit_attrs(stack, 7, 3), live.logit_attrs(expected, 7, 3)[:, 0])


def test_collections_are_what_patterns_are(file):
    every = file.stack_head_results(incl_remainder=True)
    first, second = list(every)[:2]
    assert every.sizes["pos"] == (7, 16)
    assert every.dims == ("component", "pos", "d_model")
    assert "stack_head_results" in repr(every)
    whole = file.stack_head_results(incl_remainder=True, prompt=second)
    some = every.sel(prompt=[second, first])
    assert list(some) == [second, first]
    xr.testing.assert_identical(some[second], whole)
    one = every.sel(component=["L1H2", "remainder"])[second]
    xr.testing.assert_identical(one, whole.sel(component=["L1H2", "remainder"]))
    assert every.sel(component="L1H2")[second].dims == ("pos", "d_model")
    with pytest.raises(OutOfRangeError, match="no component 'L9H9': expected some of L0H0"):
        every.sel(component="L9H9")
    np.testing.assert_allclose(every.isel(pos=0)[second], whole.isel(pos=0))
    mean = every.mean("pos")
    assert mean.dims == ("prompt", "component", "d_model")
    np.testing.assert_allclose(mean.sel(prompt=second), whole.mean("pos"), rtol=1e-6, atol=1e-7)
    padded = every.padded()
    assert np.isnan(padded.sel(prompt=second).values[:, whole.sizes["pos"] :]).all()
    norms = (every**2).sum("d_model")
    np.testing.assert_allclose(norms[first], (every[first] ** 2).sum("d_model"), rtol=1e-6)


def test_given_prompts_keep_their_order(file):
    hashes = list(file.activations["z"])
    chosen = [hashes[2], hashes[0]]
    found = file.decompose_resid(pos=-1, prompt=chosen)
    assert found["prompt"].values.tolist() == chosen
    for prompt_hash in chosen:
        alone = file.decompose_resid(pos=-1, prompt=prompt_hash)
        np.testing.assert_allclose(found.sel(prompt=prompt_hash), alone, rtol=1e-6)
    assert alone["token"].item()  # one prompt says which token it is
    with pytest.raises(PromptError, match="was named twice"):
        file.decompose_resid(prompt=[hashes[0], hashes[0]])


@pytest.mark.parametrize("pos", [-1, 2, slice(-3, None), [0, -1]])
def test_positions_are_chosen_for_each_prompt(file, pos):
    found = file.accumulated_resid(pos=pos, apply_ln=True)
    for prompt_hash in file.activations["z"]:
        alone = file.accumulated_resid(prompt=prompt_hash, apply_ln=True)
        own = found.sel(prompt=prompt_hash) if isinstance(pos, int) else found[prompt_hash]
        np.testing.assert_allclose(own, alone.isel(pos=pos), rtol=1e-5, atol=1e-6)


def test_dask_gives_the_same_lazily(captured, file):
    with pl.open_run(captured()[0], chunks={}) as lazy:
        first = next(iter(file.activations["z"]))
        for call, options in CALLS.items():
            found = getattr(lazy, call)(**options, prompt=first)
            assert found.chunks is not None
            expected = getattr(file, call)(**options, prompt=first)
            xr.testing.assert_allclose(found.compute(), expected, rtol=1e-5, atol=1e-6)
        dense = lazy.decompose_resid(pos=-1)
        assert dense.chunks is not None
        np.testing.assert_allclose(dense.compute(), file.decompose_resid(pos=-1), rtol=1e-5)
        scores = lazy.direct_logit_attribution(None, 7, 3, unit="head").scores
        assert scores.chunks is not None
        expected = file.direct_logit_attribution(None, 7, 3, unit="head").scores
        np.testing.assert_allclose(scores.compute(), expected, rtol=1e-5, atol=1e-6)


def test_results_travel_to_other_processes(file):
    every = file.stack_head_results()
    first = next(iter(every))
    again = pickle.loads(pickle.dumps(every))  # noqa: S301 - our own
    xr.testing.assert_identical(again[first], every[first])
    assert len(pickle.dumps(every)) < 100_000


# --- attribution ---------------------------------------------------------------------------------


UNITS = ("component", "layer", "head", "neuron")


@pytest.mark.parametrize(("kind", "unit"), of_all_kinds(UNITS, "neuron"))
def test_attribution_over_prompts(captured, kind, unit):
    path, _ = captured(kind)
    answers, incorrect = [7, 8, 7, 10], [3, 4, 3, 3]
    with pl.open_run(path) as run:
        found = run.direct_logit_attribution(None, answers, incorrect, unit=unit)
        assert found.scores.dims == ("prompt", "component")
        assert found.closure_error.max() < 1e-5
        for prompt_hash, right, wrong in zip(
            list(run.prompts.index), answers, incorrect, strict=True
        ):
            alone = run.direct_logit_attribution(prompt_hash, right, wrong, unit=unit)
            own = found.scores.sel(prompt=prompt_hash)
            np.testing.assert_allclose(own, alone.scores, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(
                found.logit.sel(prompt=prompt_hash), alone.logit, rtol=1e-4, atol=1e-5
            )


def test_answers_by_text_and_by_hash(file):
    hashes = list(file.activations["z"])
    by_text = file.direct_logit_attribution(hashes[:2], " the", "c")
    number = file._reader.vocab["text"].index
    by_id = file.direct_logit_attribution(
        hashes[:2], dict.fromkeys(hashes, number(" the")), [number("c")] * 2
    )
    xr.testing.assert_identical(by_text.scores, by_id.scores)
    assert by_text.top(2).shape == (2, 3)
    every = file.direct_logit_attribution(hashes[:2], " the", pos=None)
    assert every.scores.dims == ("prompt", "component", "pos")
    last = file.direct_logit_attribution(hashes[0], " the")
    n = file.prompts.loc[hashes[0], "n_ctx"]
    own = every.scores.sel(prompt=hashes[0]).isel(pos=n - 1)
    np.testing.assert_allclose(own, last.scores, rtol=1e-5, atol=1e-6)


def test_logit_attrs_of_many(file):
    hashes = list(file.activations["z"])
    every = file.stack_head_results(incl_remainder=True)
    lazy = file.logit_attrs(every, [7, 8, 9, 10], 3)
    assert lazy.dims == ("component", "pos")
    last = file.logit_attrs(
        file.stack_head_results(incl_remainder=True, pos=-1), [7, 8, 9, 10], [3] * 4, pos=-1
    )
    assert last.dims == ("prompt", "component")
    scores = file.direct_logit_attribution(None, [7, 8, 9, 10], 3, unit="head").scores
    np.testing.assert_allclose(last, scores, rtol=1e-4, atol=1e-5)
    for prompt_hash in hashes:
        own = lazy[prompt_hash].isel(pos=-1)
        np.testing.assert_allclose(own, scores.sel(prompt=prompt_hash), rtol=1e-4, atol=1e-5)
    some = file.apply_ln_to_stack(every.sel(prompt=hashes[1:3]), recompute_ln=True)
    alone = file.apply_ln_to_stack(every[hashes[2]], recompute_ln=True)
    np.testing.assert_allclose(some[hashes[2]], alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(DimensionError, match="expected pos="):
        file.logit_attrs(file.stack_head_results(pos=-1), 7)
    with pytest.raises(DimensionError, match="got list"):
        file.logit_attrs([1], 7)


def test_lens_over_prompts(file):
    hashes = list(file.activations["z"])
    lens = file.logit_lens(answer_tokens=[7, 8, 9, 10])
    assert list(lens) == hashes
    assert "4 prompts" in repr(lens)
    own = lens[hashes[1]]
    alone = file.logit_lens(answer_tokens=8, prompt=hashes[1])
    for name in own:
        np.testing.assert_array_equal(own[name], alone[name])
    assert own["top_token"].dtype == object
    padded = lens.padded()
    n = own.sizes["pos"]
    assert (padded["top_id"].sel(prompt=hashes[1]).isel(pos=slice(n, None)) == -1).all()
    last = file.logit_lens(answer_tokens=8, pos=-1)
    assert last["kl_to_final"].dims == ("prompt", "component")
    np.testing.assert_allclose(
        last["answer_rank"].sel(prompt=hashes[1]), own["answer_rank"].isel(pos=-1)
    )
    assert last["closure_error"].max() < 1e-5


# --- stored --------------------------------------------------------------------------------------


@pytest.fixture
def own_file(captured, tmp_path):
    path = tmp_path / "own.h5"
    path.write_bytes(captured()[0].read_bytes())
    with pl.open_run(path) as run:
        yield run


def test_results_are_stored(own_file):
    quiet = {"progress": False, "n_workers": 0}
    hashes = list(own_file.activations["z"])
    streams = own_file.accumulated_resid(name="streams", **quiet)
    assert streams.dims == ("prompt", "component", "pos", "d_model")
    own = own_file.accumulated_resid(prompt=hashes[1])
    stored = own_file.results["streams"].sel(prompt=hashes[1])
    np.testing.assert_array_equal(stored.isel(pos=slice(0, own.sizes["pos"])), own)
    found = own_file.direct_logit_attribution(None, 7, 3, unit="head", name="dla", **quiet)
    scores = own_file.results["dla"]
    np.testing.assert_allclose(scores, found.scores, rtol=1e-4, atol=1e-6)
    assert scores["head"].values.tolist() == found.scores["head"].values.tolist()
    assert own_file.results["dla.closure_error"].max() < 1e-5
    assert {"component_streams", "layer_streams"} <= set(own_file.results.coords)
    lens = own_file.logit_lens(pos=-1, name="lens", **quiet)
    assert lens["kl_to_final"].dims == ("prompt", "component")
    with pytest.raises(
        pl.errors.ResultMismatchError, match=r"another choice of values|another function"
    ):
        own_file.direct_logit_attribution(None, 8, 3, unit="head", name="dla", **quiet)
    again = own_file.direct_logit_attribution(
        None, 8, 3, unit="head", name="dla", force=True, **quiet
    )
    np.testing.assert_allclose(own_file.results["dla"], again.scores, rtol=1e-4, atol=1e-6)
    with pytest.raises(PromptError, match="go with name="):
        own_file.accumulated_resid(force=True)


# --- what cannot be done -------------------------------------------------------------------------


def test_refusals(captured, tmp_path):
    path, _ = captured("attn_only")
    with pl.open_run(path) as run:
        with pytest.raises(ResidualError, match="has no neurons"):
            run.stack_neuron_results(-1)
        with pytest.raises(ResidualError, match="it has no MLPs"):
            run.accumulated_resid(incl_mid=True)
    path, _ = captured("gpt2", "raw")
    with pl.open_run(path) as run:
        with pytest.raises(RawWeightsError, match="'raw' weights"):
            run.direct_logit_attribution(None, 7)
        with pytest.raises(RawWeightsError, match="'raw' weights"):
            run.logit_lens()
        assert run.decompose_resid(apply_ln=True, pos=-1).dims[0] == "prompt"


def test_files_without_what_is_needed(captured, tmp_path):
    _, model = captured()
    path = tmp_path / "few.h5"
    pl.capture(model, TEXTS, path, names=["z", "embed"], progress=False)
    with pl.open_run(path) as run:
        with pytest.raises(WeightsMissingError, match=r"'W_O', and there are none.*'residual'"):
            run.stack_head_results(prompt=next(iter(run.activations["z"])))
        with pytest.raises(
            UnknownActivationError, match=r"needs 'attn_out', 'mlp_out'.*'residual'"
        ):
            run.decompose_resid()
        with pytest.raises(WeightsMissingError, match="W_out"):
            run.get_neuron_results(0)
        assert run.decompose_resid(0, pos=-1).sizes["component"] == 1
        with pytest.raises(WeightsMissingError, match="which kind"):
            run.decompose_resid(0, apply_ln=True)


def test_prompts_without_what_is_needed(own_file, captured):
    _, model = captured()
    pl.capture(model, [*TEXTS, "fish alive"], own_file.path, names=["z"], progress=False)
    with pl.open_run(own_file.path) as run:
        assert len(run.activations["z"]) == 5
        assert len(run.stack_head_results(incl_remainder=True)) == 4
        assert len(run.stack_head_results()) == 5
        lacking = list(run.activations["z"])[-1]
        with pytest.raises(UnknownPromptError, match="needs 'resid_post' of prompt"):
            run.stack_head_results(incl_remainder=True, prompt=lacking)


def test_bad_answers(file):
    hashes = list(file.activations["z"])
    with pytest.raises(AnswerTokenError, match=r"tokens, .*expected a single token"):
        file.direct_logit_attribution(None, "the cat")
    with pytest.raises(AnswerTokenError, match="expected an id from 0 to 299"):
        file.direct_logit_attribution(hashes[0], 300)
    with pytest.raises(AnswerTokenError, match="2 answer tokens for 4 prompts"):
        file.direct_logit_attribution(None, [7, 8])
    with pytest.raises(OutOfRangeError, match="no pos 40"):
        file.direct_logit_attribution(None, 7, pos=40)
    with pytest.raises(UnknownPromptError):
        file.direct_logit_attribution("nothing", 7)
    with pytest.raises(PromptError, match="of no prompts: none was named"):
        file.direct_logit_attribution([], 7)


# --- TransformerLens' own class ------------------------------------------------------------------


def test_cache_is_the_live_one(captured, file):
    _, model = captured()
    prompt_hash, text = next(iter(file.prompts["text"].items()))
    live = cache_of(model, text)[1]
    cache = file.cache(prompt_hash, model)
    assert type(cache) is type(live)
    for hook, value in cache.items():
        np.testing.assert_allclose(value, live[hook].detach(), rtol=1e-5, atol=1e-5, err_msg=hook)
    np.testing.assert_allclose(
        cache.decompose_resid(apply_ln=True),
        live.decompose_resid(apply_ln=True).detach(),
        rtol=1e-4,
        atol=1e-5,
    )
    heads = cache.stack_head_results(incl_remainder=True).detach()
    np.testing.assert_allclose(
        heads, live.stack_head_results(incl_remainder=True).detach(), atol=1e-5
    )


def test_cache_of_several(captured, file):
    lengths = file.prompts["n_ctx"]
    longest = lengths.index[0]
    with pytest.raises(PromptError, match="a cache holds prompts of one length"):
        file.cache([longest, lengths.index[lengths != lengths.iloc[0]][0]])
    cache = file.cache([longest])
    assert cache["resid_pre", 0].shape == (1, lengths.iloc[0], 32)
    with pytest.raises(PromptError, match="of no prompts"):
        file.cache([])
    with pytest.raises(ModelMismatchError, match="weights 'compatibility' in the file, 'raw' now"):
        file.cache(longest, tiny_model("gpt2"))


def test_methods_take_what_the_functions_take():
    own = {
        "activations",
        "weights",
        "vocabulary",
        "answer_token",
    }  # which a file has, or takes for each prompt
    for name in set(residual.__all__) - {"Attribution"}:
        function = inspect.signature(getattr(residual, name)).parameters
        method = inspect.signature(getattr(pl.Run, name)).parameters
        assert set(function) - own - {"name"} <= set(method), name
        for option in set(function) & set(method) - own - {"name"}:
            assert function[option].default == method[option].default


@pytest.mark.slow
def test_other_processes_store_the_same(own_file):
    found = own_file.direct_logit_attribution(
        None, [7, 8, 9, 10], 3, unit="head", name="dla", progress=False, n_workers=2
    )
    np.testing.assert_allclose(own_file.results["dla"], found.scores, rtol=1e-4, atol=1e-6)


def test_nothing_imports_torch():
    code = "import pattern_lens.residual, pattern_lens.run, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
