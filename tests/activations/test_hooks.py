import re

import pytest

from pattern_lens.activations.hooks import HookGroup, all_hooks, legacy_names, resolve_names
from pattern_lens.errors import UnknownHookError
from pattern_lens.names import ACTIVATIONS

PATTERNS = tuple(f"blocks.{layer}.attn.hook_pattern" for layer in range(3))
WEIGHTS = pytest.mark.parametrize("weights", ["raw", "compatibility"])


def names(groups):
    return [group.name for group in groups]


@WEIGHTS
@pytest.mark.parametrize("word", ["pattern", "attn", "attn_pattern"])
def test_short_name_and_its_aliases(make_model, weights, word):
    assert resolve_names(word, make_model("gpt2", weights)) == [
        HookGroup(
            name="pattern",
            template="blocks.{layer}.attn.hook_pattern",
            layers=(0, 1, 2),
            hooks=PATTERNS,
            dims=("head", "query", "key"),
            named=True,
        )
    ]


@WEIGHTS
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_every_known_activation_resolves_to_its_legacy_hooks(make_model, kind, weights):
    model = make_model(kind, weights)
    there = {group.name for group in all_hooks(model)}
    known = [spec for spec in ACTIVATIONS.values() if spec.name in there]
    assert len(known) >= 20
    for spec in known:
        (group,) = resolve_names(spec.name, model)
        layers = (0, 1, 2) if spec.has_layers else ()
        hooks = tuple(spec.hook(layer) for layer in layers) or (spec.template,)
        assert (group.layers, group.hooks, group.dims) == (layers, hooks, spec.dims)


@WEIGHTS
@pytest.mark.parametrize(
    ("native", "legacy"),
    [
        ("blocks.0.attn.o.hook_in", "blocks.0.attn.hook_z"),
        ("blocks.1.hook_in", "blocks.1.hook_resid_pre"),
        ("blocks.2.ln2.hook_in", "blocks.2.hook_resid_mid"),
        ("blocks.2.attn.hook_q_input", "blocks.2.hook_q_input"),
        ("embed.hook_out", "hook_embed"),
        ("blocks.1.mlp.out.hook_in", "blocks.1.mlp.hook_post"),
        ("ln_final.hook_in", "ln_final.hook_in"),
        ("blocks.2.attn.hook_pattern", "blocks.2.attn.hook_pattern"),
    ],
)
def test_hook_names_of_the_bridge_lead_to_the_legacy_ones(make_model, weights, native, legacy):
    model = make_model("gpt2", weights)
    (by_native,) = resolve_names(native, model)
    (by_legacy,) = resolve_names(legacy, model)
    assert by_native == by_legacy
    assert by_native.hooks == (legacy,)


def test_each_hook_point_has_one_legacy_name(make_model):
    model = make_model()
    points = model.model.hook_dict
    legacy = legacy_names(model)
    assert set(legacy) == set(points)
    assert all(points[name] is points[found] for name, found in legacy.items())
    assert len(set(legacy.values())) == len({id(point) for point in points.values()})


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "bert", "t5", "attn_only"])
def test_names_are_unique_in_a_model(make_model, kind):
    groups = all_hooks(make_model(kind))
    assert len(set(names(groups))) == len(groups)


@pytest.mark.parametrize(
    "one",
    [
        "blocks.*.attn.hook_pattern",
        "patter?",
        "*[tT]ern",
        re.compile(r"attn\.hook_pat"),
        lambda hook: hook.endswith("hook_pattern"),
    ],
)
def test_globs_regexes_and_functions(make_model, one):
    (group,) = resolve_names(one, make_model())
    assert group.hooks == PATTERNS
    assert not group.named


def test_several_at_once_keep_their_order_and_merge(make_model):
    asked = ["z", "blocks.2.attn.hook_pattern", re.compile("0.attn.hook_pattern"), "attn.o.in"]
    z, pattern = resolve_names(asked, make_model())
    assert (z.name, z.layers) == ("z", (0, 1, 2))
    assert (pattern.layers, pattern.hooks) == ((0, 2), (PATTERNS[0], PATTERNS[2]))
    assert pattern.named


def test_hooks_of_one_layer_only(make_model):
    (group,) = resolve_names("blocks.1.*resid_post", make_model())
    assert (group.layers, group.hooks) == ((1,), ("blocks.1.hook_resid_post",))


def test_unknown_activation_has_no_dims(make_model):
    (group,) = resolve_names("mlp.pre_linear", make_model("llama"))
    assert group.dims is None


def test_filters_leave_out_what_needs_a_setting_unless_there_is_nothing_else(make_model):
    model = make_model()
    assert "result" not in names(resolve_names("blocks.*", model))
    assert names(resolve_names("blocks.*.hook_result", model)) == ["result"]
    assert names(resolve_names("result", model)) == ["result"]


def test_patterns_of_an_encoder_decoder_have_names_of_their_own(make_model):
    model = make_model("t5")
    assert names(resolve_names("*hook_pattern", model)) == [
        "encoder_blocks.attn.pattern",
        "decoder_blocks.self_attn.pattern",
        "decoder_blocks.cross_attn.pattern",
    ]
    (cross,) = resolve_names("decoder_blocks.cross_attn.pattern", model)
    assert cross.layers == (0, 1, 2)
    assert cross.dims == ("head", "query", "key")


@pytest.mark.parametrize(
    ("kind", "one", "message"),
    [
        (
            "t5",
            "pattern",
            r"'pattern'; nearest: encoder_blocks\.attn\.pattern, decoder_blocks\.sel",
        ),
        (
            "gpt2",
            "resid_psot",
            r"no hook of model 'tiny-gpt2' .* 'resid_psot'; nearest: resid_post,",
        ),
        ("gpt2", "blocks.0.attn.hook_patern", r"nearest: blocks\.0\.attn\.hook_pattern"),
        ("gpt2", "blocks.9.*", r"'blocks\.9\.\*'; nearest: .*all_hooks\(model\) lists"),
        ("gpt2", re.compile("nothing.*"), r"'nothing\.\*'; nearest"),
        ("gpt2", lambda hook: False, r"by '<function .*<lambda>"),
        ("attn_only", "mlp_out", r"'mlp_out'; nearest: "),
    ],
)
def test_what_matches_nothing_is_an_error(make_model, kind, one, message):
    with pytest.raises(UnknownHookError, match=message):
        resolve_names(["embed", one], make_model(kind))


def test_what_is_no_filter_is_refused(make_model):
    with pytest.raises(TypeError, match="cannot choose hooks by 3; expected a name, glob"):
        resolve_names(["pattern", 3], make_model())
