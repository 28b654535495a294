"""Train the demo model's autoencoder: ``python -m pattern_lens.demo.train_autoencoder [--steps N] [--out DIR] [--seed N]``.

Rule: it learns from what the demo model learnt from, save one document of twenty, on which it is measured; every random
choice comes from the seed. In training the largest latents of a whole batch are kept, so many for each token on average;
the least that is kept becomes the threshold of a JumpReLU, so that what is stored looks at one token at a time.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from pattern_lens.demo import autoencoder_path, model_path
from pattern_lens.demo.train import (
    encode_corpus,
    learning_rate,
    read_corpus,
    repeated_batch,
    text_batch,
)
from pattern_lens.features.autoencoder import SparseAutoencoder
from pattern_lens.features.saelens import write_autoencoder

HOOK = "blocks.0.mlp.hook_post"
N_FEATURES = 256
N_ACTIVE = 10
N_ROWS, LENGTH = 24, 96
N_REPEATED = 6  # rows of a batch that are random tokens, repeated: they have the rare ones
PEAK = 1.0  # learning rate, in units of the demo model's
N_SILENT = 100  # steps after which a feature that was never active counts as dead
N_REVIVED = 32
AUXILIARY = 1 / 8
HELD_OUT = 20


@dataclass
class Learner:
    """An autoencoder in training, of inputs that were scaled to a mean square of 1.

    Attributes
    ----------
    W_enc, b_enc, W_dec, b_dec
        Dims (d_in, feature), (feature), (feature, d_in), (d_in).
    threshold
        Running mean of the least latent that was kept.
    silent
        Steps since each feature was active, dims (feature).
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: float = 0.0
    silent: Tensor = field(default_factory=lambda: torch.zeros(N_FEATURES))

    @classmethod
    def start(cls, x: Tensor, rng: torch.Generator) -> "Learner":
        """Random unit directions around the mean, read as they are written."""
        rows = torch.randn(N_FEATURES, x.shape[-1], generator=rng)
        rows /= rows.norm(dim=-1, keepdim=True)
        found = cls(rows.T.clone(), torch.zeros(N_FEATURES), rows, x.mean(dim=0))
        for one in found.parameters:
            one.requires_grad_()
        return found

    @property
    def parameters(self) -> list[Tensor]:
        """What is learnt."""
        return [self.W_enc, self.b_enc, self.W_dec, self.b_dec]

    def loss(self, x: Tensor) -> Tensor:
        """Share of variance that is missed, and, of dead features, how badly they explain what is missed."""
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        kept = self._kept(pre.relu())
        error = x - (kept @ self.W_dec + self.b_dec)
        variance = (x - x.mean(dim=0)).square().sum()
        missed = error.square().sum() / variance
        dead = self.silent > N_SILENT
        if not dead.any():
            return missed
        largest = pre.masked_fill(~dead, -torch.inf).topk(min(N_REVIVED, int(dead.sum())))
        revived = torch.zeros_like(pre).scatter(-1, largest.indices, largest.values.relu())
        left = error.detach() - revived @ self.W_dec
        return missed + AUXILIARY * left.square().sum() / error.detach().square().sum()

    def _kept(self, latents: Tensor) -> Tensor:
        least = latents.detach().flatten().topk(N_ACTIVE * len(latents)).values[-1]
        active = latents >= least.clamp_min(1e-6)
        self.threshold += (0.01 if self.threshold else 1) * (float(least) - self.threshold)
        self.silent = torch.where(active.any(dim=0), torch.zeros(()), self.silent + 1)
        return latents * active

    @torch.no_grad()
    def normalise(self) -> None:
        """Bring the decoder's rows to unit length, so that latents are lengths."""
        self.W_dec /= self.W_dec.norm(dim=-1, keepdim=True)

    @torch.no_grad()
    def finished(self, scale: float) -> SparseAutoencoder:
        """What it has become, for inputs as they are, in half precision."""
        weights = {
            "W_enc": self.W_enc,
            "b_enc": self.b_enc / scale,
            "threshold": torch.full((N_FEATURES,), self.threshold / scale),
            "W_dec": self.W_dec,
            "b_dec": self.b_dec / scale,
        }
        own = {key: value.detach().clone() for key, value in weights.items()}
        return SparseAutoencoder("jumprelu", HOOK, own).to(dtype="float16")


# --- activations -------------------------------------------------------------


def first_neurons(model: GPT2LMHeadModel) -> Callable[[Tensor], Tensor]:
    """Function of tokens that gives the neurons of the first layer, dims (row, pos, neuron)."""
    model.transformer.h = model.transformer.h[:1]
    seen: list[Tensor] = []
    layer: Any = model.transformer.h[0]
    layer.mlp.act.register_forward_hook(lambda *args: seen.append(args[-1]))

    @torch.no_grad()
    def neurons(tokens: Tensor) -> Tensor:
        model.transformer(tokens)
        return seen.pop()

    return neurons


def tokens_of(corpus: Tensor, rng: torch.Generator) -> Tensor:
    """A batch of text and of repetition, dims (row, pos)."""
    text = text_batch(corpus, N_ROWS - N_REPEATED, LENGTH, rng)
    return torch.cat([text, repeated_batch(N_REPEATED, LENGTH, rng)[0]])


def train(batch: Callable[[], Tensor], n_steps: int, rng: torch.Generator) -> tuple[Learner, float]:
    """An autoencoder and the scale of its inputs, with a line of loss every two hundred steps."""
    first = batch()
    scale = float(first.square().mean().rsqrt())
    learner = Learner.start(first * scale, rng)
    optimizer = torch.optim.Adam(learner.parameters, betas=(0.9, 0.99))
    started = time.perf_counter()
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * learning_rate(step, n_steps)
        loss = learner.loss(batch() * scale)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        learner.normalise()
        if (step + 1) % 200 == 0 or step + 1 == n_steps:
            n_dead = int((learner.silent > N_SILENT).sum())
            seconds = time.perf_counter() - started
            print(
                f"step {step + 1} loss {loss.item():.3f} dead {n_dead} seconds {seconds:.0f}",
                flush=True,
            )
    return learner, scale


# --- command -----------------------------------------------------------------


@torch.no_grad()
def report(autoencoder: SparseAutoencoder, x: Tensor) -> None:
    """Print how good it is on inputs of dims (pos, d_in)."""
    own = autoencoder.to(dtype="float32")
    latents = own.encode(x)
    left = (x - own.decode(latents)).square().sum() / (x - x.mean(dim=0)).square().sum()
    density = (latents > 0).float().mean(dim=0)
    print(f"active features a token (L0): {float((latents > 0).sum(-1).float().mean()):.1f}")
    print(f"share of variance explained: {1 - float(left):.3f}")
    print(f"features that never fire on {len(x)} tokens: {int((density == 0).sum())}")
    print(f"features that fire on more than a tenth of them: {int((density > 0.1).sum())}")


def parse_arguments() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description="train the demo model's autoencoder")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps")
    parser.add_argument("--out", type=Path, default=autoencoder_path(), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    return parser.parse_args()


def main() -> None:
    """Train, save, and print how good what was saved is."""
    arguments = parse_arguments()
    torch.set_num_threads(1)  # sums in another order give other weights
    rng = torch.Generator().manual_seed(arguments.seed)
    documents = read_corpus(arguments.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_path())
    corpus, others = (
        encode_corpus(
            tokenizer, [one for i, one in enumerate(documents) if (i % HELD_OUT == 0) == out]
        )
        for out in (False, True)
    )
    neurons = first_neurons(GPT2LMHeadModel.from_pretrained(model_path()))
    learner, scale = train(
        lambda: neurons(tokens_of(corpus, rng)).flatten(0, 1), arguments.steps, rng
    )
    found = learner.finished(scale)
    write_autoencoder(
        arguments.out, found, metadata={"model_name": "demo-gpt2", "prepend_bos": True}
    )
    report(found, neurons(text_batch(others, 256, LENGTH, rng)).flatten(0, 1))


if __name__ == "__main__":
    main()
