"""Tiny models for tests: random weights, made in memory, the same for the same seed.

Rule: nothing here asks a network or reads a file that it did not write.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    import os

Kind = Literal["gpt2", "llama", "mistral", "neox", "bert", "t5", "attn_only"]
"""Architectures: learned positions; rotary with grouped keys; the same with a sliding window;
rotary with parallel blocks; bidirectional; encoder and decoder; attention without MLPs."""

N_CTX: Final = 64
BOS: Final = "<|endoftext|>"

_SENTENCES: Final = (
    "the cat sat on the mat and the dog lay on the log",
    "hello world, hello there, who is there in the world?",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "one two three four five, once I caught a fish alive",
)
_D_MODEL: Final = 32
_D_MLP: Final = 40
_N_HEADS: Final = 4
_N_KV_HEADS: Final = 2
_WINDOW: Final = 5
_SPREAD: Final = 0.2


def tiny_tokenizer() -> Any:
    """Byte-level BPE with about 300 tokens, one of them for BOS, EOS and padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_SENTENCES, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        model_max_length=N_CTX,
        clean_up_tokenization_spaces=False,
        # TransformerLens would otherwise open the tokenizer again by its name, to switch BOS on.
        name_or_path="tiny",
        add_bos_token=True,
    )


def tiny_model(kind: Kind = "gpt2", *, seed: int = 0, n_layers: int = 3) -> Any:
    """Live TransformerBridge with random weights: 4 heads, 32 dimensions, 64 positions.

    Parameters
    ----------
    kind
        Architecture; ``llama`` and ``mistral`` have 2 key-value heads, ``mistral`` sees 5 tokens.
    seed
        Same seed, same weights; torch's own random state is left alone.
    n_layers
        Number of blocks; of an encoder-decoder, on each side.

    Returns
    -------
    A float32 model on the CPU, in evaluation mode.
    """
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = tiny_tokenizer()
    if kind == "attn_only":
        bridge = _native_bridge(tokenizer, seed, n_layers)
    else:
        model = _hugging_face_model(kind, len(tokenizer), seed, n_layers)
        bridge = TransformerBridge.boot_transformers(
            f"tiny-{kind}", hf_model=model, tokenizer=tokenizer, device="cpu", dtype=model.dtype
        )
    bridge.eval()
    return bridge


def tiny_model_folder(
    path: str | os.PathLike[str], kind: Kind = "gpt2", *, seed: int = 0, n_layers: int = 3
) -> Path:
    """Folder with a tiny model and its tokenizer, as Hugging Face's ``save_pretrained`` writes it.

    Parameters
    ----------
    path
        Folder to write to; made if it is not there.
    kind, seed, n_layers
        As for `tiny_model`, which has the same weights; ``attn_only`` has no such folder.

    Returns
    -------
    `path`.
    """
    tokenizer = tiny_tokenizer()
    model = _hugging_face_model(kind, len(tokenizer), seed, n_layers)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return Path(path)


def _hugging_face_model(kind: str, n_vocab: int, seed: int, n_layers: int) -> Any:
    import torch
    import transformers

    if kind not in get_args(Kind) or kind == "attn_only":
        raise ValueError(
            f"no Hugging Face model of kind {kind!r}, expected one of {get_args(Kind)}"
        )
    prefix, options = _settings(kind, n_layers)
    config = getattr(transformers, f"{prefix}Config")(vocab_size=n_vocab, **options)
    heads = {"bert": "ForMaskedLM", "t5": "ForConditionalGeneration", "gpt2": "LMHeadModel"}
    model_class = getattr(transformers, prefix + heads.get(kind, "ForCausalLM"))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():  # norms and biases too, or processing would do nothing
            parameter.add_(torch.randn_like(parameter) * _SPREAD)
    model.config.architectures = [model_class.__name__]
    return model.eval()


def _settings(kind: str, n_layers: int) -> tuple[str, dict[str, Any]]:
    """Prefix of the classes, and the config's options, of one architecture."""
    if kind == "gpt2":
        sizes = {"n_embd": _D_MODEL, "n_inner": _D_MLP, "n_layer": n_layers, "n_head": _N_HEADS}
        return "GPT2", {**sizes, "n_positions": N_CTX}
    if kind == "t5":
        sizes = {"d_model": _D_MODEL, "d_kv": _D_MODEL // _N_HEADS, "d_ff": _D_MLP}
        options = {"pad_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
        return "T5", {**sizes, **options, "num_layers": n_layers, "num_heads": _N_HEADS}
    sizes = {
        "hidden_size": _D_MODEL,
        "intermediate_size": _D_MLP,
        "num_hidden_layers": n_layers,
        "num_attention_heads": _N_HEADS,
        "max_position_embeddings": N_CTX,
    }
    grouped = {"num_key_value_heads": _N_KV_HEADS}
    return {
        "llama": ("Llama", sizes | grouped),
        "mistral": ("Mistral", sizes | grouped | {"sliding_window": _WINDOW}),
        "neox": ("GPTNeoX", sizes),
        "bert": ("Bert", sizes),
    }[kind]


def _native_bridge(tokenizer: Any, seed: int, n_layers: int) -> Any:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import native

    config = TransformerBridgeConfig(
        d_model=_D_MODEL,
        d_head=_D_MODEL // _N_HEADS,
        n_heads=_N_HEADS,
        n_layers=n_layers,
        n_ctx=N_CTX,
        d_vocab=len(tokenizer),
        attn_only=True,
        seed=seed,
    )
    return native.boot(config, tokenizer=tokenizer, device="cpu", model_name="tiny-attn_only")
