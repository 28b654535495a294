import numpy as np
import pytest
import torch

from pattern_lens.activations.forward import pad_right, run_hooks
from pattern_lens.activations.hooks import resolve_names
from pattern_lens.activations.probe import Probe, _agreed, _constant_above_diagonal, _Look, probe
from pattern_lens.errors import HookSilentError
from pattern_lens.models import load_model
from pattern_lens.testing import tiny_model

TEXTS = [
    "the cat sat on the mat and the dog lay on the log",
    "hello world",
    "one two three four five, once I caught a fish",
]
PATTERNS = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]


def run(model, hooks, texts=TEXTS):
    rows = [model.tokenize(text).ids for text in texts]
    tokens, mask = pad_right(rows, masked=not model.causal)
    kept = {}
    run_hooks(
        model, tokens, hooks, lambda name, x: kept.update({name: x.clone()}), attention_mask=mask
    )
    return rows, kept


def look(model, names, text=TEXTS[0]):
    return probe(model, resolve_names(names, model), model.tokenize(text).ids)


def n_hooks_on(bridge):
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) for p in bridge.hook_dict.values())


# --- values --------------------------------------------------------------------------------------

CASES = [
    (kind, weights, bos)
    for kind in ("gpt2", "llama", "mistral", "neox", "bert")
    for weights in ("raw", "compatibility")
    for bos in (True, False)
]


@pytest.mark.parametrize(
    ("kind", "weights", "bos"), [*CASES, ("t5", "raw", True), ("attn_only", "raw", True)]
)
def test_padded_batch_equals_each_prompt_alone(make_model, kind, weights, bos):
    model = make_model(kind, weights, prepend_bos=bos)
    groups = resolve_names("*", model)
    probes = look(model, "*")
    ragged = {
        hook: [dim in {"query", "key", "pos"} for dim in probes[group.name].dims]
        for group in groups
        if group.name in probes
        for hook in group.hooks
    }
    rows, batch = run(model, ragged)
    assert len({len(row) for row in rows}) == len(rows)
    for i, row in enumerate(rows):
        _, alone = model.model.run_with_cache(torch.from_numpy(row.astype(np.int64))[None])
        for hook, is_ragged in ragged.items():
            own = tuple(slice(len(row)) if cut else slice(None) for cut in is_ragged)
            expected = alone[hook][0]
            # A pattern is at most 1; other values are of order 1 to 100, masked scores apart.
            size = max(1.0, expected[expected.abs() < 1e30].abs().max().item())
            error = 1e-5 if kind == "t5" else 1e-6  # T5 does not scale its scores down
            torch.testing.assert_close(batch[hook][i][own], expected, rtol=0, atol=error * size)


def test_without_its_mask_a_bidirectional_model_sees_the_padding(make_model):
    model = make_model("bert")
    rows, masked = run(model, PATTERNS)
    plain = {}
    tokens, _ = pad_right(rows, masked=False)
    run_hooks(model, tokens, PATTERNS, lambda name, x: plain.update({name: x.clone()}))
    assert (plain[PATTERNS[0]][1] - masked[PATTERNS[0]][1])[:, :3, :3].abs().max() > 0.01


def test_what_is_made_once_for_a_batch_is_handed_on_for_each_prompt(make_model):
    rows, kept = run(make_model(), ["hook_pos_embed"])
    assert kept["hook_pos_embed"].shape == (3, max(map(len, rows)), 32)


def test_pad_right():
    rows = [np.array([5, 6], np.int32), np.array([7, 8, 9], np.int32)]
    tokens, mask = pad_right(rows, masked=True)
    assert tokens.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert pad_right(rows, masked=False)[1] is None


# --- what a run computes, and what it leaves behind ----------------------------------------------


def test_run_ends_at_its_last_hook():
    model = load_model(tiny_model())
    calls = []
    parts = {"unembed": model.model.unembed, "last mlp": model.model.blocks[2].mlp}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    run(model, PATTERNS)
    assert calls == []
    run(model, [*PATTERNS, "blocks.2.hook_resid_post"])
    assert calls == ["last mlp"]
    run(model, ["hook_unembed", *PATTERNS])
    assert calls == ["last mlp", "last mlp", "unembed"]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_run_leaves_nothing_behind(kind):
    bridge = tiny_model(kind)
    model = load_model(bridge)
    tokens = torch.arange(1, 8)[None]
    before, n_before = bridge(tokens), n_hooks_on(bridge)  # BERT's bridge has hooks of its own
    run(model, PATTERNS)
    assert n_hooks_on(bridge) == n_before
    assert bridge.context_level == 0
    assert torch.equal(bridge(tokens), before)
    assert before.requires_grad


def test_failing_sink_leaves_nothing_behind(make_model):
    model = make_model()

    def fail(name, value):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run_hooks(model, torch.arange(1, 8)[None], PATTERNS, fail)
    assert n_hooks_on(model.model) == 0


def test_model_in_training_runs_without_dropout_and_stays_in_training():
    bridge = tiny_model()
    bridge.train()
    bridge.blocks[1].eval()
    modes = [part.training for part in bridge.original_model.modules()]
    model = load_model(bridge)
    _, first = run(model, PATTERNS)
    _, second = run(model, PATTERNS)
    assert torch.equal(first[PATTERNS[2]], second[PATTERNS[2]])
    sums = first[PATTERNS[2]].sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert [part.training for part in bridge.original_model.modules()] == modes
    assert bridge.training
    assert not bridge.blocks[1].training


def test_values_hold_no_graph(make_model):
    _, kept = run(make_model(), PATTERNS)
    assert not kept[PATTERNS[0]].requires_grad


def test_no_hooks_no_run(make_model):
    run_hooks(make_model(), torch.tensor([[1, 2]]), [], pytest.fail)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_setting_that_a_hook_needs_is_on_during_the_run_only(make_model, kind):
    model = make_model(kind)
    hooks = ["blocks.1.attn.hook_result", "blocks.1.hook_attn_out"]
    _, kept = run(model, hooks)
    written = kept[hooks[0]].sum(2)
    bias = kept[hooks[1]] - written
    torch.testing.assert_close(bias, bias[:1, :1].expand_as(bias), rtol=0, atol=1e-5)
    assert model.model.cfg.use_attn_result is False


def test_setting_stays_on_if_it_was_on():
    bridge = tiny_model()
    bridge.set_use_attn_result(True)
    run(load_model(bridge), ["blocks.1.attn.hook_result"])
    assert bridge.cfg.use_attn_result is True


def test_settings_that_exclude_each_other(make_model):
    model = make_model()
    with pytest.raises(HookSilentError, match=r"needs use_attn_in, which .* cannot switch on"):
        run(model, ["blocks.0.hook_q_input", "blocks.0.hook_attn_in"])
    assert model.model.cfg.use_split_qkv_input is False


def test_setting_that_the_architecture_does_not_have(make_model):
    with pytest.raises(HookSilentError, match=r"'blocks.0.attn.hook_result' needs use_attn_result"):
        run(make_model("bert"), ["blocks.0.attn.hook_result"])


def test_hook_that_never_fires_is_an_error(make_model):
    with pytest.raises(HookSilentError, match=r"never fired: \['hook_pos_embed'\]"):
        run(make_model("llama"), ["hook_pos_embed", *PATTERNS])


# --- probes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("gpt2", "pattern", Probe(("head", "query", "key"), (4,), "float32", True, 0.0)),
        ("mistral", "pattern", Probe(("head", "query", "key"), (4,), "float32", True, 0.0)),
        ("bert", "pattern", Probe(("head", "query", "key"), (4,), "float32", False, 0.0)),
        ("llama", "k", Probe(("pos", "kv_head", "d_head"), (2, 8), "float32", False, 0.0)),
        ("llama", "q", Probe(("pos", "head", "d_head"), (4, 8), "float32", False, 0.0)),
        ("gpt2", "ln1_scale", Probe(("pos",), (), "float32", False, 0.0)),
        ("gpt2", "result", Probe(("pos", "head", "d_model"), (4, 32), "float32", False, 0.0)),
        ("gpt2", "embed.in", Probe(("pos",), (), "int64", False, 0.0)),
        ("gpt2", "mlp.in", Probe(("pos", "d_model"), (32,), "float32", False, 0.0)),
        ("llama", "mlp.pre_linear", Probe(("pos", "width"), (40,), "float32", False, 0.0)),
        ("gpt2", "q_input", Probe(("pos", "head", "d_model"), (4, 32), "float32", False, 0.0)),
        (
            "t5",
            "decoder_blocks.cross_attn.pattern",
            Probe(("head", "query", "key"), (4,), "float32", False, 0.0),
        ),
    ],
)
def test_probe(make_model, kind, name, expected):
    assert look(make_model(kind), name) == {name: expected}


@pytest.mark.parametrize("text", ["", "the cat sat on the mat"])
def test_probe_tells_a_mask_from_nothing_on_any_prompt(make_model, text):
    assert look(make_model(), "pattern", text)["pattern"].triangle
    assert not look(make_model("bert"), "pattern", text)["pattern"].triangle


@pytest.mark.parametrize(
    ("weights", "fill"), [("raw", torch.finfo(torch.float32).min), ("compatibility", -np.inf)]
)
def test_probe_of_masked_scores(make_model, weights, fill):
    found = look(make_model("gpt2", weights), "attn_scores")["attn_scores"]
    assert (found.triangle, found.fill_value) == (True, fill)


@pytest.mark.parametrize(
    ("above", "expected"), [(0.0, 0.0), (-np.inf, -np.inf), (-1e9, -1e9), (0.25, None)]
)
def test_only_a_masking_value_makes_a_triangle(above, expected):
    square = torch.full((1, 2, 3, 3), 0.25) + torch.triu(torch.full((3, 3), above - 0.25), 1)
    assert _constant_above_diagonal(square) == expected


def test_one_value_above_the_diagonal_makes_a_rectangle():
    square = torch.tril(torch.ones(1, 2, 3, 3))
    square[0, 1, 0, 2] = 0.1
    assert _constant_above_diagonal(square) is None


def test_probe_dtype_of_a_narrow_model():
    bridge = tiny_model()
    bridge.to(torch.bfloat16)
    assert look(load_model(bridge), "pattern")["pattern"].dtype == "bfloat16"


def test_probe_leaves_out_what_a_filter_matched_and_never_fires(make_model):
    model = make_model("llama")
    probes = look(model, ["pattern", "*hidden_states", "hook_*_embed", "embed"])
    assert list(probes) == ["pattern", "embed"]


def test_probe_refuses_a_named_activation_that_never_fires(make_model):
    with pytest.raises(HookSilentError, match=r"never fired: \['blocks.0.attn.hook_rot_k', "):
        look(make_model("neox"), "rot_k")


def test_probe_of_nothing_that_fires(make_model):
    with pytest.raises(HookSilentError, match=r"none of \['attn.hidden_states'\] can be recorded"):
        look(make_model("llama"), "*hidden_states")


def test_probe_refuses_layers_that_differ():
    wide = _Look("blocks.0.x", (1, 4, 6), Probe(("pos", "width"), (6,), "float32", False, 0.0))
    thin = _Look("blocks.1.x", (1, 4, 5), Probe(("pos", "width"), (5,), "float32", False, 0.0))
    message = r"'blocks.0.x' has shape \(1, 4, 6\) of float32, 'blocks.1.x' has \(1, 4, 5\)"
    with pytest.raises(HookSilentError, match=message):
        _agreed([wide, thin])


def test_probe_of_layers_of_which_one_is_not_masked():
    dims = ("head", "query", "key")
    masked = _Look("blocks.0.x", (1, 4, 5, 5), Probe(dims, (4,), "float32", True, 0.0))
    full = _Look("blocks.1.x", (1, 4, 5, 5), Probe(dims, (4,), "float32", False, 0.0))
    assert _agreed([masked, full]) == full.probe
