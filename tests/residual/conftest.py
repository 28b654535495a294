"""Live models beside what a file would hold of them: activations of one prompt, weights, TransformerLens' cache."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pattern_lens.names import ACTIVATIONS, LAYER
from pattern_lens.testing import tiny_model

TEXT = "the cat sat on the mat and the dog"


@dataclass
class Live:
    """A model, one prompt's cache, and both as this package has them."""

    model: Any
    cache: Any
    logits: Any
    activations: dict[str, xr.DataArray]
    weights: xr.Dataset


def numpy_of(tensor):
    return tensor.detach().float().cpu().numpy()


def activations_of(model, tl_cache, logits) -> dict[str, xr.DataArray]:
    found = {}
    for name, spec in ACTIVATIONS.items():
        if name in ("result", "pattern", "attn_scores"):
            continue
        if spec.has_layers:
            hooks = [spec.hook(layer) for layer in range(model.cfg.n_layers)]
            if not all(hook in tl_cache.cache_dict for hook in hooks):
                continue
            values = np.stack([numpy_of(tl_cache.cache_dict[hook])[0] for hook in hooks])
            dims = (LAYER, *spec.dims)
        elif spec.template in tl_cache.cache_dict:
            values, dims = numpy_of(tl_cache.cache_dict[spec.template])[0], spec.dims
        else:
            continue
        if name.endswith("_scale"):
            values = values[..., 0]
        coords = {LAYER: np.arange(len(values))} if LAYER in dims else {}
        if "pos" in dims:
            coords["pos"] = np.arange(values.shape[dims.index("pos")])
        found[name] = xr.DataArray(values, dims=dims, coords=coords, name=name)
    found["final_logits"] = xr.DataArray(numpy_of(logits)[0, -1], dims="token")
    return found


def weights_of(model, mode: str) -> xr.Dataset:
    cfg = model.cfg
    n_layers = cfg.n_layers
    found = {
        "W_O": (("layer", "head", "d_head", "d_model"), numpy_of(model.W_O)),
        "W_U": (("d_model", "token"), numpy_of(model.W_U)),
        "b_U": (("token",), numpy_of(model.b_U)),
    }
    if not cfg.attn_only:
        found["W_out"] = (("layer", "neuron", "d_model"), numpy_of(model.W_out))
    for name in ("b_O", "b_out"):
        with suppress(AttributeError):  # many models have no such biases
            found[name] = (("layer", "d_model"), numpy_of(getattr(model, name)))
    norm = model.ln_final._original_component
    if mode == "raw":
        found["ln_final_w"] = (("d_model",), numpy_of(norm.weight))
        if getattr(norm, "bias", None) is not None:
            found["ln_final_b"] = (("d_model",), numpy_of(norm.bias))
    kind = cfg.normalization_type or "none"
    attrs = {
        "normalization": {"LNPre": "LN", "RMSPre": "RMS"}.get(kind, kind),
        "eps": float(cfg.eps),
        "logit_softcap": 0.0,
        "attn_only": bool(cfg.attn_only),
        "parallel_attn_mlp": bool(getattr(cfg, "parallel_attn_mlp", False)),
        "weights": mode,
        "n_layers": n_layers,
        "n_heads": cfg.n_heads,
    }
    return xr.Dataset(found, attrs=attrs)


@cache
def live(kind: str, mode: str = "compatibility") -> Live:
    if kind == "demo":
        from pattern_lens.demo import model_path
        from pattern_lens.models import load_model

        model = load_model(model_path(), weights=mode).model
        text = "one two three four one two three four"
    else:
        model, text = tiny_model(kind), TEXT
        if mode == "compatibility":
            model.enable_compatibility_mode()
    import torch

    with torch.no_grad():
        logits, tl_cache = model.run_with_cache(model.to_tokens(text, prepend_bos=True))
    return Live(
        model, tl_cache, logits, activations_of(model, tl_cache, logits), weights_of(model, mode)
    )


@pytest.fixture(scope="session")
def make_live():
    """Live models by kind and weights mode; shared."""
    return live
