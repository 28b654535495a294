"""Train the demo model: ``python -m pattern_lens.demo.train [--steps N] [--out DIR] [--seed N]``.

Rule: everything the model learns from is on the machine already. Half of each batch is Python's own
documentation, half is random tokens repeated, because repetition is what makes previous-token and
induction heads form within minutes. Every training sequence starts with BOS, and every random
choice comes from the seed.
"""

import argparse
import ast
import json
import math
import random
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pattern_lens.demo import model_path, prompts_path

BOS = "<|endoftext|>"
BOS_ID = 0  # the tokenizer's trainer puts special tokens first
N_VOCAB = 1024
N_CTX = 256
LEARNING_RATE = 2e-3
N_WARM_UP = 100
MIN_PERIOD = 8
IGNORED = -100  # the target that `cross_entropy` skips unless told otherwise
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


# --- text --------------------------------------------------------------------


def docstrings(source: str) -> Iterator[str]:
    """Docstrings of one Python source text: its module, classes and functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def standard_library_docstrings() -> Iterator[str]:
    """Docstrings of every standard-library module, read from source so that nothing is imported."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts):
            try:
                yield from docstrings(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue  # lib2to3 and friends carry files that are wrong on purpose


def read_corpus(seed: int) -> list[str]:
    """All documents, each once, in an order that depends on the seed only."""
    documents = list(dict.fromkeys([*topics.values(), *standard_library_docstrings()]))
    random.Random(seed).shuffle(documents)
    return documents


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one special token, which serves as BOS, EOS and padding."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        model_max_length=N_CTX,
        clean_up_tokenization_spaces=False,
    )


def encode_corpus(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> Tensor:
    """One long row of token ids, with BOS before each document."""
    ids: list[int] = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(documents):
        ids += [BOS_ID, *encoding.ids]
    return torch.tensor(ids)


# --- batches -----------------------------------------------------------------


def text_batch(corpus: Tensor, n_rows: int, length: int, rng: torch.Generator) -> Tensor:
    """Random slices of the corpus after BOS, dims (row, position)."""
    starts = torch.randint(len(corpus) - length, (n_rows, 1), generator=rng)
    rows = corpus[starts + torch.arange(length)]
    rows[:, 0] = BOS_ID
    return rows


def repeated_rows(periods: Tensor, length: int, rng: torch.Generator) -> Tensor:
    """BOS, then random tokens that repeat with each row's own period, dims (row, position)."""
    pool = torch.randint(BOS_ID + 1, N_VOCAB, (len(periods), length), generator=rng)
    rows = torch.full((len(periods), length), BOS_ID)
    rows[:, 1:] = pool.gather(1, torch.arange(length - 1) % periods[:, None])
    return rows


def repeated_batch(n_rows: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Repeated rows and their targets, of which those that nothing foretells are ignored."""
    max_period = max(32, length // 3)
    periods = torch.randint(MIN_PERIOD, max_period + 1, (n_rows,), generator=rng)
    rows = repeated_rows(periods, length, rng)
    # The second copy's first token is a surprise too: nothing has followed the one before it yet.
    unforeseeable = torch.arange(length) <= periods[:, None] + 1
    return rows, rows.masked_fill(unforeseeable, IGNORED)


def mixed_batch(
    corpus: Tensor, n_rows: int, length: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens and targets, half of the rows text and half repetition."""
    text = text_batch(corpus, n_rows // 2, length, rng)
    repeated, targets = repeated_batch(n_rows - n_rows // 2, length, rng)
    return torch.cat([text, repeated]), torch.cat([text, targets])


def batch_shape(step: int, n_steps: int) -> tuple[int, int]:
    """Rows and length at one step: mostly short at first, so that heads form soon."""
    if step % 4 == 0:
        return 16, N_CTX
    return (64, 64) if step < n_steps // 2 else (32, 128)


# --- model and loop ----------------------------------------------------------


def make_model() -> GPT2LMHeadModel:
    """Untrained GPT-2 with 4 layers of 8 heads, without dropout."""
    config = GPT2Config(
        vocab_size=N_VOCAB,
        n_positions=N_CTX,
        n_embd=128,
        n_layer=4,
        n_head=8,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS_ID,
        eos_token_id=BOS_ID,
        architectures=["GPT2LMHeadModel"],
    )
    return GPT2LMHeadModel(config)


def learning_rate(step: int, n_steps: int) -> float:
    """Linear warm-up, then a half cosine down to a twentieth of the peak."""
    if step < N_WARM_UP:
        return LEARNING_RATE * (step + 1) / N_WARM_UP
    progress = (step - N_WARM_UP) / max(1, n_steps - N_WARM_UP)
    return LEARNING_RATE * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)


def make_optimizer(model: GPT2LMHeadModel) -> torch.optim.AdamW:
    """AdamW that decays the blocks' matrices only: a rare token's embedding must not wither."""
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or ".h." not in n]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95))


def next_token_loss(model: GPT2LMHeadModel, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats over the targets that are not ignored."""
    logits: Tensor = model(tokens).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def train(model: GPT2LMHeadModel, corpus: Tensor, n_steps: int, rng: torch.Generator) -> None:
    """Train in place, with a line of loss every hundred steps."""
    optimizer = make_optimizer(model)
    started = time.perf_counter()
    model.train()
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, n_steps)
        tokens, targets = mixed_batch(corpus, *batch_shape(step, n_steps), rng)
        loss = next_token_loss(model, tokens, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == n_steps:
            seconds = time.perf_counter() - started
            print(f"step {step + 1} loss {loss.item():.3f} seconds {seconds:.0f}", flush=True)
    model.train(mode=False)


# --- head scores -------------------------------------------------------------


@torch.no_grad()
def patterns(model: GPT2LMHeadModel, tokens: Tensor) -> Tensor:
    """Attention probabilities, dims (layer, head, row, query, key)."""
    attentions = model(tokens, output_attentions=True).attentions
    return torch.stack(attentions).transpose(1, 2)


def previous_token_scores(pattern: Tensor) -> Tensor:
    """Mean attention from each query to the token before it, dims (layer, head)."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(-2, -1))


def induction_scores(pattern: Tensor, period: int) -> Tensor:
    """Mean attention from the second copy to what followed in the first, dims (layer, head)."""
    stripe = pattern.diagonal(offset=-(period - 1), dim1=-2, dim2=-1)
    # From key 2 on: the queries that look at keys 0 and 1 belong to the first copy.
    return stripe[..., 2:].mean(dim=(-2, -1))


def prompt_scores(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Previous-token scores, averaged over the demo prompts, dims (layer, head)."""
    scores = []
    for line in prompts_path().read_text(encoding="utf-8").splitlines():
        ids = tokenizer.encode(BOS + json.loads(line)["text"], add_special_tokens=False)
        scores.append(previous_token_scores(patterns(model, torch.tensor([ids]))))
    return torch.stack(scores).mean(dim=0)


def describe(name: str, scores: Tensor) -> str:
    """One line with the three best heads of a score, dims (layer, head)."""
    best = scores.flatten().topk(3)
    heads = [divmod(int(i), scores.shape[1]) for i in best.indices]
    labels = [f"L{layer}H{head} {scores[layer, head]:.3f}" for layer, head in heads]
    return f"{name}: {', '.join(labels)}"


def report_heads(path: Path, period: int = 25) -> None:
    """Print the scores of the saved model, read back so that it returns its patterns."""
    model = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    rng = torch.Generator().manual_seed(0)
    pattern = patterns(model, repeated_rows(torch.full((64,), period), 2 * period + 1, rng))
    print(describe("previous token, repeated random tokens", previous_token_scores(pattern)))
    print(describe("previous token, demo prompts", prompt_scores(model, tokenizer)))
    print(describe("induction, repeated random tokens", induction_scores(pattern, period)))


# --- command -----------------------------------------------------------------


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write model and tokenizer as a folder that loads offline."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "generation_config.json").unlink()  # says nothing that config.json does not
    # The weights are written for their owner only, and a wheel would keep that.
    (path / "model.safetensors").chmod(0o644)
    # transformers 5 writes its new name of the class; 4 knows only the old one, and 5 takes both.
    settings_path = path / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description="train the demo model of pattern_lens")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps")
    parser.add_argument("--out", type=Path, default=model_path(), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    return parser.parse_args()


def main() -> None:
    """Train, save, and print what the saved heads do."""
    arguments = parse_arguments()
    torch.set_num_threads(2)
    torch.manual_seed(arguments.seed)
    rng = torch.Generator().manual_seed(arguments.seed)
    documents = read_corpus(arguments.seed)
    tokenizer = train_tokenizer(documents)
    corpus = encode_corpus(tokenizer, documents)
    n_chars = sum(map(len, documents))
    print(f"{len(documents)} documents, {n_chars} characters, {len(corpus)} tokens", flush=True)
    model = make_model()
    train(model, corpus, arguments.steps, rng)
    save(model, tokenizer, arguments.out)
    report_heads(arguments.out)


if __name__ == "__main__":
    main()
