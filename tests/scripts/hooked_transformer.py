"""Run by test_hooked_transformer.py with TransformerLens 3: capture a HookedTransformer and compare."""

import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from transformer_lens import HookedTransformer, HookedTransformerConfig

from pattern_lens.activations.capture import capture
from pattern_lens.models import CaptureModel, load_model
from pattern_lens.prompts import prompt_hash
from pattern_lens.run import open_run
from pattern_lens.store.reader import StoreReader
from pattern_lens.testing import tiny_tokenizer

TEXTS = ["the cat sat on the mat", "one two three one two", "a"]


def main(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = HookedTransformerConfig(
        n_layers=3,
        d_model=32,
        n_ctx=64,
        d_head=8,
        n_heads=4,
        d_vocab=len(tokenizer),
        act_fn="gelu",
        device="cpu",
    )
    model = load_model(HookedTransformer(config, tokenizer=tokenizer), prepend_bos=True)
    capture(model, TEXTS, folder / "m.h5", names=("pattern", "resid_post"), progress=False)
    reader = StoreReader(folder / "m.h5")
    for text in TEXTS:
        ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
        _, cache = model.model.run_with_cache(ids)
        position = reader.prompts.position(prompt_hash(text))
        for name in ("pattern", "resid_post"):
            array = reader.array(name)
            stored = array.read(array.row_of(position))
            for layer, hook in enumerate(array.layout.hooks):
                expected = cache[hook][0].detach().numpy()
                scale = max(1.0, float(np.abs(expected).max()))
                np.testing.assert_allclose(stored[layer], expected, rtol=0, atol=1e-6 * scale)
    check_residual(model, folder / "residual.h5")
    print("equal", reader.model["versions"]["transformer_lens"])


def check_residual(model: CaptureModel, path: Path) -> None:
    """The weights and the last stream of a file give the logits that it holds, and the model's own."""
    capture(model, TEXTS, path, names=["residual", "mlp_post"], progress=False)
    with open_run(path) as run:
        weights, found = run.weights, run.activations
        for text in TEXTS:
            name = prompt_hash(text)
            stream = found["resid_post"][name].isel(layer=-1, pos=-1)
            stream = (stream - stream.mean()) / found["ln_final_scale"][name].isel(pos=-1)
            stream = stream * weights.get("ln_final_w", 1) + weights.get("ln_final_b", 0)
            logits = xr.dot(stream, weights["W_U"], dim="d_model") + weights["b_U"]
            ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
            with torch.no_grad():
                own = model.model(ids)[0, -1].numpy()
            for one in (logits, found["final_logits"][name]):
                np.testing.assert_allclose(one, own, rtol=0, atol=1e-5)


main(Path(sys.argv[1]))
