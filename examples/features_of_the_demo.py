"""From a model and its sparse autoencoder to a page of features: what each fires on, and what the model loses without it.

    python examples/features_of_the_demo.py pages

The bundled autoencoder stands at the neurons of the bundled model's first layer. The features whose removal hurts most at
the tokens on which they are strongest are printed, with such a token, and written into one page that works offline.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import pattern_lens as pl
from pattern_lens.demo import autoencoder_path, model_path, prompts_path
from pattern_lens.features import FeatureSet

TOP = -1  # the group of sequences with the largest activations


def main(folder: str) -> None:
    """Capture latents, compute what they are, and show the features that matter most."""
    target = Path(folder)
    target.mkdir(exist_ok=True)
    model, path = pl.load_model(model_path()), target / "features.h5"
    sae = pl.load_autoencoder(autoencoder_path())

    report = pl.capture_features(model, sae, prompts_path(), path, names="post", progress=False)
    n_active = sum(report.n_entries.values())
    print(f"{sae.name}: {sae.n_features} features, {n_active / report.n_tokens:.1f} active a token")

    found = pl.compute_features(path, sae, model=model, progress=False)
    never = int((found.data.n_active == 0).sum())
    print(f"{never} never fire; effects computed {found.spec['loss_effect_method']}")

    effect = of_top_sequences(found.data)
    effect = effect.fillna(0).sortby(effect.fillna(0), ascending=False)[:3]
    for number, nats in zip(effect.feature.values.tolist(), effect.values, strict=True):
        one = found.sel(feature=number)
        there = one.isel(sequence=0, place=int(one.peak[0]))
        raised = [repr(text) for text in found.texts(there.raised_token.values[:3])]
        print(f"feature {number}: the next token costs {nats:+.2f} nats more without it")
        print(f"  fires on {window(found, one)}, where it raises {', '.join(raised)}")
        neuron, pearson = int(one.correlated_neuron[0]), float(one.neuron_pearson[0])
        print(f"  goes with neuron {neuron}: {pearson:.2f}")
    best = effect.feature.values.tolist()
    page = pl.export_features(path, target / "features.html", features=best, progress=False)
    print(f"written to {page.path.name}")


def of_top_sequences(data: xr.Dataset) -> xr.DataArray:
    """Mean loss effect of each feature at the tokens on which it is strongest."""
    peak = data.peak.clip(min=0).astype(int).compute()
    at_peak = data.loss_effect.compute().isel(place=peak)
    return at_peak.where((data.sequence_group == TOP) & (data.sequence_prompt >= 0)).mean(
        "sequence"
    )


def window(found: FeatureSet, one: xr.Dataset) -> str:
    """The first sequence of a feature as text, the token it is about between brackets."""
    ids = one.sequence_token[0].values
    texts = found.texts(np.maximum(ids, 0))
    peak = int(one.peak[0])
    return repr(
        "".join(
            f"[{text}]" if place == peak else text
            for place, text in enumerate(texts)
            if ids[place] >= 0
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
