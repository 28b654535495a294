"""Each scalar equals a plain loop, and is the same on torch tensors; names and registration."""

import numpy as np
import pytest
import torch

from pattern_lens.errors import DimensionError, SpecificationError, UnknownScalarError
from pattern_lens.names import ACTIVATIONS
from pattern_lens.tracing.definitions.sites import SITE_NAMES
from pattern_lens.tracing.scalars import (
    DEFAULT,
    SCALARS,
    register_scalar,
    scalar,
    scalar_names,
    scalar_table,
)

SIZES = {
    "pos": 5,
    "query": 5,
    "key": 5,
    "head": 4,
    "kv_head": 2,
    "d_head": 3,
    "d_model": 7,
    "neuron": 6,
    "feature": 8,
    "token": 9,
}
N_PROMPTS = 2
FEW = [3, 1]
WEIGHTS = {
    "W_O": ("head", "d_head", "d_model"),
    "b_O": ("d_model",),
    "W_out": ("neuron", "d_model"),
    "b_out": ("d_model",),
    "W_write": ("feature", "d_model"),
}
OF_SAE = {
    "latent": ("pos", "feature"),
    "latent_grad": ("pos", "feature"),
    "sae_error": ("pos", "neuron"),
    "sae_error_grad": ("pos", "neuron"),
    "sae_error_write": ("pos", "d_model"),
}


class Batch:
    """One layer of random numbers, of which each is its own."""

    layer = 3
    n_heads = SIZES["head"]

    def __init__(self, dtype=np.float64):
        rng = np.random.default_rng(5)
        dims = {name + end: s.dims for name, s in ACTIVATIONS.items() for end in ("", "_grad")}
        dims |= OF_SAE
        self.values = {name: rng.normal(size=self.shape(of)) for name, of in dims.items()}
        pattern = np.tril(np.abs(self.values["pattern"]))
        self.values["pattern"] = pattern / pattern.sum(-1, keepdims=True)
        self.weights = {name: rng.normal(size=self.shape(of)[1:]) for name, of in WEIGHTS.items()}
        shape = (N_PROMPTS, len(FEW), SIZES["d_model"])
        self.directions = {
            writer: rng.normal(size=shape) for writer in ("attn", "mlp", "embed", "sae")
        }
        self.directions["attn"][1] = 0  # of the second prompt a node is traced that is upstream

    @staticmethod
    def shape(dims):
        return (N_PROMPTS, *(SIZES[dim] for dim in dims))

    def __getitem__(self, name):
        return self.values[name]

    def weight(self, name):
        return self.weights[name]

    def direction(self, writer):
        return self.directions[writer]

    def there(self, values):
        return values[:, FEW]

    def spread(self, values):
        whole = np.zeros((values.shape[0], SIZES["pos"], *values.shape[2:]))
        whole[:, FEW] = values
        return whole

    def everywhere(self, writer):
        """The direction at every position."""
        return self.spread(self.directions[writer])


class TorchBatch(Batch):
    def __init__(self):
        super().__init__()
        for held in (self.values, self.weights, self.directions):
            held.update({name: torch.from_numpy(array) for name, array in held.items()})

    def spread(self, values):
        whole = values.new_zeros((values.shape[0], SIZES["pos"], *values.shape[2:]))
        whole[:, FEW] = values
        return whole


@pytest.fixture(scope="module")
def at():
    return Batch()


def looped(dims, function):
    """An array from a function of the prompt and an index along each dim."""
    shape = Batch.shape(dims)
    return np.array([function(*place) for place in np.ndindex(*shape)]).reshape(shape)


HEADS = ("head", "pos")
PAIRS = ("head", "query", "key")
NEURONS = ("pos", "neuron")


def written_by_head(at, p, h, q):
    return at["z"][p, q, h] @ at.weight("W_O")[h]


def moved(at, p, h, q, k):
    return at["pattern"][p, h, q, k] * (at["v"][p, k, h // 2] @ at.weight("W_O")[h])


def vector(name, writer):
    return {
        "write_magnitude": lambda at: looped(("pos",), lambda p, q: np.linalg.norm(at[name][p, q])),
        "estimated_total_effect": lambda at: looped(
            ("pos",), lambda p, q: at[name][p, q] @ at[f"{name}_grad"][p, q]
        ),
        "direct_effect": lambda at: looped(
            ("pos",), lambda p, q: at[name][p, q] @ at.everywhere(writer)[p, q]
        ),
    }


def bias(name, writer):
    return lambda at: looped(
        (), lambda p: sum(at.weight(name) @ at.directions[writer][p, i] for i in range(len(FEW)))
    )


def projection(at):
    directions = at.directions["embed"].sum(1)
    return looped(
        ("pos",),
        lambda p, q: at["resid_pre"][p, q] @ directions[p] / np.linalg.norm(directions[p]),
    )


ORACLES = {
    "head_write_magnitude": lambda at: looped(
        HEADS, lambda p, h, q: np.linalg.norm(written_by_head(at, p, h, q))
    ),
    "head_estimated_total_effect": lambda at: looped(
        HEADS, lambda p, h, q: at["z"][p, q, h] @ at["z_grad"][p, q, h]
    ),
    "head_direct_effect": lambda at: looped(
        HEADS, lambda p, h, q: written_by_head(at, p, h, q) @ at.everywhere("attn")[p, q]
    ),
    "pair_activation": lambda at: at["pattern"],
    "pair_gradient": lambda at: at["pattern_grad"],
    "pair_write_magnitude": lambda at: looped(
        PAIRS, lambda p, h, q, k: np.linalg.norm(moved(at, p, h, q, k))
    ),
    "pair_estimated_total_effect": lambda at: looped(
        PAIRS, lambda *place: at["pattern"][place] * at["pattern_grad"][place]
    ),
    "pair_direct_effect": lambda at: looped(
        PAIRS, lambda p, h, q, k: moved(at, p, h, q, k) @ at.everywhere("attn")[p, q]
    ),
    "neuron_activation": lambda at: at["post"],
    "neuron_gradient": lambda at: at["post_grad"],
    "neuron_write_magnitude": lambda at: looped(
        NEURONS, lambda p, q, n: np.linalg.norm(at["post"][p, q, n] * at.weight("W_out")[n])
    ),
    "neuron_estimated_total_effect": lambda at: looped(
        NEURONS, lambda *place: at["post"][place] * at["post_grad"][place]
    ),
    "neuron_direct_effect": lambda at: looped(
        NEURONS,
        lambda p, q, n: at["post"][p, q, n] * at.weight("W_out")[n] @ at.everywhere("mlp")[p, q],
    ),
    **{f"attn_{m}": oracle for m, oracle in vector("attn_out", "attn").items()},
    **{f"mlp_{m}": oracle for m, oracle in vector("mlp_out", "mlp").items()},
    **{f"embed_{m}": oracle for m, oracle in vector("resid_pre", "embed").items()},
    "attn_bias_direct_effect": bias("b_O", "attn"),
    "mlp_bias_direct_effect": bias("b_out", "mlp"),
    "resid_norm": vector("resid_pre", "")["write_magnitude"],
    "resid_projection": projection,
    "latent_activation": lambda at: at["latent"],
    "latent_gradient": lambda at: at["latent_grad"],
    "latent_write_magnitude": lambda at: looped(
        ("pos", "feature"),
        lambda p, q, f: np.linalg.norm(at["latent"][p, q, f] * at.weight("W_write")[f]),
    ),
    "latent_estimated_total_effect": lambda at: looped(
        ("pos", "feature"), lambda *place: at["latent"][place] * at["latent_grad"][place]
    ),
    "latent_direct_effect": lambda at: looped(
        ("pos", "feature"),
        lambda p, q, f: (
            at["latent"][p, q, f] * at.weight("W_write")[f] @ at.everywhere("sae")[p, q]
        ),
    ),
    "sae_error_write_magnitude": vector("sae_error_write", "")["write_magnitude"],
    "sae_error_estimated_total_effect": vector("sae_error", "")["estimated_total_effect"],
    "sae_error_direct_effect": vector("sae_error_write", "sae")["direct_effect"],
}


def test_every_scalar_has_an_oracle():
    assert set(ORACLES) == set(SCALARS) - {"edges"}


@pytest.mark.parametrize("name", ORACLES)
def test_a_scalar_is_what_it_says(at, name):
    known = SCALARS[name]
    found = known.function(at)
    expected = ORACLES[name](at)
    assert np.abs(expected).max() > 0
    assert found.shape == at.shape(dim for dim in known.dims if dim != "layer")
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_torch_gives_the_same(at, name):
    found = SCALARS[name].function(TorchBatch())
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found, SCALARS[name].function(at), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_a_scalar_takes_what_it_needs_and_nothing_else(at, name):
    known, taken = SCALARS[name], set()

    class Watched(Batch):
        def __getitem__(self, asked):
            taken.add(asked)
            return at[asked]

        def weight(self, asked):
            taken.add(asked)
            return at.weight(asked)

        def direction(self, writer):
            taken.add("direction")
            return at.direction(writer)

    known.function(Watched())
    assert taken == set(known.needs)


def test_pairs_add_up_to_heads(at):
    at = Batch()
    values = np.repeat(at["v"], 2, axis=2)
    at.values["z"] = np.einsum("phqk,pkhd->pqhd", at["pattern"], values)
    at.values["z_grad"] = np.einsum("pqm,hdm->pqhd", at.everywhere("attn"), at.weight("W_O"))
    at.values["pattern_grad"] = np.einsum("pqhd,pkhd->phqk", at["z_grad"], values)
    for measure in ("direct_effect", "estimated_total_effect"):
        of_pairs = SCALARS[f"pair_{measure}"].function(at).sum(-1)
        np.testing.assert_allclose(of_pairs, SCALARS[f"head_{measure}"].function(at), atol=1e-12)


def test_no_projection_on_a_direction_of_zero(at):
    at = Batch()
    at.directions["embed"][0] = 0
    found = SCALARS["resid_projection"].function(at)
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()


def test_activations_and_gradients_are_scalars(at):
    for name in SITE_NAMES:
        known = scalar(name)
        assert known.needs == (name,)
        if name in at.values:
            assert known.function(at) is at[name]
    assert scalar("z").dims == ("layer", "pos", "head", "d_head")
    assert scalar("pattern_grad").dims == ("layer", "head", "query", "key")
    assert scalar("embed").dims == scalar("resid_final_grad").dims == ("pos", "d_model")
    assert scalar("mlp_in_grad").dims == ("layer", "pos", "d_model")
    assert scalar("mlp_post_grad").name == "post_grad"
    assert scalar("blocks.2.attn.hook_z").name == "z"
    assert scalar("final_logits_grad").definition.startswith("gradient with respect to output")


def test_what_a_scalar_says_of_itself():
    direct, edges, pattern = SCALARS["head_direct_effect"], SCALARS["edges"], scalar("pattern")
    assert (direct.kind, direct.measure) == ("head", "direct_effect")
    assert (edges.kind, edges.measure) == ("edges", "")
    assert SCALARS["attn_bias_direct_effect"].kind == "attn_bias"
    assert direct.has_layers
    assert not SCALARS["embed_direct_effect"].has_layers
    assert direct.has_gradients
    assert not pattern.has_gradients
    assert not SCALARS["pair_write_magnitude"].has_gradients
    assert [name for name in SCALARS if SCALARS[name].is_of_sae] == [
        name for name in SCALARS if name.startswith(("latent", "sae"))
    ]


def test_names_are_expanded():
    assert scalar_names("default") == DEFAULT
    assert set(DEFAULT) == {
        *(
            f"{kind}_{measure}"
            for kind in ("head", "mlp", "embed")
            for measure in ("write_magnitude", "estimated_total_effect", "direct_effect")
        ),
        "attn_bias_direct_effect",
        "mlp_bias_direct_effect",
    }
    assert scalar_names("pair") == tuple(n for n in SCALARS if n.startswith("pair_"))
    assert "attn_bias_direct_effect" not in scalar_names("attn")
    assert len(scalar_names("attn")) == len(scalar_names("embed")) == 3
    assert scalar_names(["mlp_post", "post", "edges"]) == ("post", "edges")
    assert scalar_names(["resid_*", "resid_norm"]) == ("resid_norm", "resid_projection")
    assert scalar_names(DEFAULT) == DEFAULT


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("head_direct_efect", r"no scalar 'head_direct_efect'.*did you mean 'head_direct_effect'"),
        ("pattern_gard", r"did you mean 'pattern_grad'"),
        ("Z*", r"no scalar 'Z\*': expected a kind \(head, pair"),
        (3, "no scalar 3: expected a name, and got int"),
    ],
)
def test_unknown_names(asked, match):
    with pytest.raises(UnknownScalarError, match=match):
        scalar_names([asked])


def test_the_table():
    table = scalar_table()
    assert list(table) == ["name", "dims", "needs", "definition"]
    assert table["name"].tolist() == list(SCALARS)
    one = table.set_index("name").loc["pair_direct_effect"]
    assert one["dims"] == "layer, head, query, key"
    assert one["needs"] == "pattern, v, W_O, direction"
    assert table["definition"].str.contains(r"\((?:definition|[A-Z].+ 20\d\d, .+)\)$").all()


@pytest.fixture
def registered():
    before = dict(SCALARS)
    yield
    SCALARS.clear()
    SCALARS.update(before)


def test_a_scalar_of_ones_own(at, registered):
    @register_scalar("my_norm", dims=("layer", "pos"), needs=["mlp_out"], definition="|mlp_out|")
    def my_norm(at):
        return (at["mlp_out"] ** 2).sum(-1) ** 0.5

    assert scalar_names("my_*") == ("my_norm",)
    assert SCALARS["my_norm"].needs == ("mlp_out",)
    expected = SCALARS["mlp_write_magnitude"].function(at)
    np.testing.assert_allclose(SCALARS["my_norm"].function(at), expected)
    np.testing.assert_allclose(my_norm(at), expected)
    with pytest.raises(
        SpecificationError, match=r"a scalar is called so.*del SCALARS\['my_norm'\]"
    ):
        register_scalar("my_norm", dims=("pos",), needs=(), definition="")


@pytest.mark.parametrize(
    ("name", "dims", "needs", "error", "match"),
    [
        ("my norm", ("pos",), (), SpecificationError, "expected a Python identifier"),
        ("z_grad", ("pos",), (), SpecificationError, "an activation or its gradient is called so"),
        ("mlp_in_grad", ("pos",), (), SpecificationError, "is called so; choose another name"),
        ("mine", ("position",), (), DimensionError, "no dim 'position', expected some of layer,"),
        ("mine", ("prompt", "pos"), (), DimensionError, "no dim 'prompt'"),
        ("mine", ("pos", "layer"), (), DimensionError, "expected each once, and 'layer' first"),
        ("mine", ("pos", "pos"), (), DimensionError, "expected each once"),
        ("mine", ("pos",), ("mlp_uot",), SpecificationError, "'mlp_uot'.*did you mean 'mlp_out'"),
    ],
)
def test_what_cannot_be_registered(name, dims, needs, error, match):
    with pytest.raises(error, match=match):
        register_scalar(name, dims=dims, needs=needs, definition="")
    assert name not in SCALARS
