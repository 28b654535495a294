import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from pattern_lens.errors import ModelMismatchError, ModelNotFoundError, PromptError, TokenizerError
from pattern_lens.models import load_model
from pattern_lens.testing import BOS, N_CTX, tiny_model, tiny_model_folder, tiny_tokenizer
from pattern_lens.tokens import check_tokenizer, tokenizer_hash, vocabulary

PROVENANCE = {
    "name", "n_layers", "n_heads", "d_model", "n_ctx", "dtype", "architecture", "weights",
    "weights_hash", "revision", "source", "attention", "causal", "prepend_bos", "padding",
    "tokenizer", "tokenizer_hash", "versions",
}  # fmt: skip
FLAGS = {
    "fold_ln": True,
    "center_writing_weights": True,
    "center_unembed": True,
    "fold_value_biases": True,
    "refactor_factored_attn_matrices": False,
    "no_processing": False,
}


def words_tokenizer():
    """A tokenizer of whole words, without BOS or any other special token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "the": 1, "cat": 2, "sat": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")  # noqa: S106


def bert_tokenizer():
    """A tokenizer that puts [CLS] (2) before a text and [SEP] (3) after it."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def folder_with(tmp_path, model_folder, tokenizer):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_folder / name, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


# --- folders and names ---------------------------------------------------------------------------


def test_folder(model_folder, monkeypatch):
    monkeypatch.chdir(model_folder.parent)
    model = load_model("tiny-gpt2", device="cpu")
    assert (model.name, model.source, model.model.cfg.model_name) == ("tiny-gpt2",) * 3
    assert (model.n_ctx, model.dtype, str(model.device)) == (N_CTX, "float32", "cpu")
    assert not model.model.training
    assert load_model(model) is model


@pytest.mark.parametrize("as_path", [str, lambda path: path, lambda path: f"{path}/../tiny-gpt2/"])
def test_folder_however_it_is_spelled(model_folder, as_path):
    assert load_model(as_path(model_folder), device="cpu").name == "tiny-gpt2"


def test_folder_below_home(model_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(model_folder.parent))
    assert load_model("~/tiny-gpt2", device="cpu").name == "tiny-gpt2"


def test_dtype(model_folder):
    assert load_model(model_folder, device="cpu", dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(
        ValueError, match=r"unknown dtype 'half-float', expected one of \['float32'"
    ):
        load_model(model_folder, device="cpu", dtype="half-float")


def test_tiny_folder_of_a_model_that_hugging_face_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="no Hugging Face model of kind 'attn_only', expected one"):
        tiny_model_folder(tmp_path, "attn_only")


@pytest.mark.parametrize("name", ["./nothing", "~/nothing", "/no/such/folder", "a/b/c", "models/"])
def test_path_to_nothing_fails_at_once(name):
    start = time.perf_counter()
    with pytest.raises(ModelNotFoundError, match=r"no folder '.*' \(looked at /.*config\.json"):
        load_model(name)
    assert time.perf_counter() - start < 0.5


def test_path_object_is_never_a_hub_name(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no folder '.*/gpt2'"):
        load_model(tmp_path / "gpt2")


def test_folder_without_config(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no model in folder .*: expected .*config\.json"):
        load_model(tmp_path)


def test_folder_without_weights(tmp_path, model_folder):
    folder_with(tmp_path, model_folder, tiny_tokenizer())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"holds no loadable model: .*model\.safetensors"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("name", "similar"), [("EleutherAI/pythia-70n", "EleutherAI/pythia-70m"), ("gpt-2", "gpt2")]
)
def test_unknown_hub_name(name, similar):
    with pytest.raises(ModelNotFoundError, match="neither a local folder nor a name") as caught:
        load_model(name)
    assert similar in str(caught.value)
    assert "HF_HUB_OFFLINE=1" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_unknown_hub_name_like_no_other():
    with pytest.raises(ModelNotFoundError, match="'qqqqqqqq' is neither") as caught:
        load_model("qqqqqqqq")
    assert "Similar" not in str(caught.value)


def test_importing_is_light():
    code = (
        "import sys, pattern_lens.models, pattern_lens.testing, pattern_lens.activations.probe;"
        "print({'torch', 'transformers', 'tokenizers', 'transformer_lens'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- live objects --------------------------------------------------------------------------------


def hooked_transformer_like(bridge):
    """What this package uses of a HookedTransformer, which does not tell its weights mode."""
    same = ("cfg", "run_with_hooks", "to_tokens", "hook_dict", "tokenizer", "named_parameters")
    return SimpleNamespace(**{name: getattr(bridge, name) for name in same})


def test_live_bridge_is_taken_as_it_is():
    bridge = tiny_model()
    bridge.train()
    model = load_model(bridge)
    assert model.model is bridge
    assert bridge.training
    assert (model.name, model.source) == ("tiny-gpt2", None)


def test_live_bridge_that_was_loaded_from_a_path_is_named_without_it(model_folder):
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(model_folder), device="cpu")
    model = load_model(bridge)
    assert model.name == "tiny-gpt2"
    assert str(model_folder.parent) not in json.dumps(model.provenance())


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"a SimpleNamespace is not a model .* no run_with_hooks, "):
        load_model(SimpleNamespace(cfg=None))


@pytest.mark.parametrize(
    "option", [{"device": "cpu"}, {"dtype": "float16"}, {"revision": "main"}, {"tokenizer": "x"}]
)
def test_options_of_loading_are_refused_for_live_models(option):
    with pytest.raises(TypeError, match="is taken as it is: device, dtype, tokenizer and revision"):
        load_model(tiny_model(), **option)


@pytest.mark.parametrize("option", [{"weights": "raw"}, {"prepend_bos": False}])
def test_options_are_refused_for_what_was_loaded(make_model, option):
    with pytest.raises(TypeError, match="so are weights and prepend_bos"):
        load_model(make_model(), **option)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, {"mode": "raw"}),
        ("raw", {"mode": "raw"}),
        ("compatibility", {"mode": "compatibility", **FLAGS}),
        ({}, {"mode": "compatibility", **FLAGS}),
        ({"fold_ln": False}, {"mode": "compatibility", **FLAGS, "fold_ln": False}),
        (
            {"no_processing": True},
            {"mode": "compatibility", **dict.fromkeys(FLAGS, False), "no_processing": True},
        ),
    ],
)
def test_weights_mode(model_folder, weights, expected):
    model = load_model(model_folder, device="cpu", weights=weights)
    assert model.provenance()["weights"] == expected
    assert model.model.compatibility_mode is (expected["mode"] == "compatibility")
    assert model.weights_hash == load_model(model_folder, device="cpu").weights_hash


def test_weights_mode_tells_what_an_architecture_cannot_do(tmp_path):
    folder = tiny_model_folder(tmp_path, "bert")
    with pytest.warns(UserWarning, match="does not support fold_ln"):
        model = load_model(folder, device="cpu", weights="compatibility")
    assert model.weights["fold_ln"] is False
    assert model.weights["center_unembed"] is True


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("folded", ValueError, "weights 'folded', expected 'raw', 'compatibility' or flags"),
        ({"fold": True}, TypeError, r"unknown weights flags \['fold'\], expected some of"),
    ],
)
def test_unknown_weights_mode(model_folder, weights, error, message):
    with pytest.raises(error, match=message):
        load_model(model_folder, device="cpu", weights=weights)


@pytest.mark.parametrize("flags", [{}, {"no_processing": True}])
def test_weights_mode_of_a_live_bridge_is_found(flags):
    bridge = tiny_model()
    assert load_model(bridge).weights == {"mode": "raw"}
    bridge.enable_compatibility_mode(**flags)
    found = load_model(bridge).weights
    assert (found["mode"], found["no_processing"]) == ("compatibility", bool(flags))
    assert found["fold_ln"] is (False if flags else None)


def test_flags_of_a_live_bridge_are_as_the_caller_says():
    bridge = tiny_model()
    bridge.enable_compatibility_mode(center_unembed=False)
    assert load_model(bridge, weights={"center_unembed": False}).weights["center_unembed"] is False
    assert load_model(bridge, weights="compatibility").weights["center_unembed"] is None


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (None, "compatibility"),
        ({}, "raw"),
        ({}, {"no_processing": True}),
        (None, {"fold_ln": True}),
    ],
)
def test_live_bridge_in_another_mode_than_asked_for(flags, asked):
    bridge = tiny_model()
    if flags is not None:
        bridge.enable_compatibility_mode(**flags)
    with pytest.raises(ModelMismatchError, match=r"weights \{'mode': .*enable_compatibility_mode"):
        load_model(bridge, weights=asked)


def test_processed_weights_without_compatibility_mode():
    bridge = tiny_model()
    bridge.process_weights()
    assert load_model(bridge).weights == {"mode": "processed"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, {"mode": "unknown"}),
        ("raw", {"mode": "raw"}),
        ({"fold_ln": False}, {"mode": "compatibility", **FLAGS, "fold_ln": False}),
    ],
)
def test_weights_mode_of_a_hooked_transformer_is_what_the_caller_says(asked, expected):
    model = load_model(hooked_transformer_like(tiny_model()), weights=asked)
    assert model.weights == expected


def test_weights_hash_tells_weights_apart(model_folder):
    found = {
        "folder": load_model(model_folder, device="cpu").weights_hash,
        "live": load_model(tiny_model()).weights_hash,
        "seed": load_model(tiny_model(seed=1)).weights_hash,
        "kind": load_model(tiny_model("llama")).weights_hash,
    }
    assert found["folder"] == found["live"]
    assert len(set(found.values())) == 3


# --- tokens --------------------------------------------------------------------------------------


def test_folder_without_tokenizer_files(tmp_path, model_folder):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_folder / name, tmp_path)
    with pytest.raises(
        TokenizerError, match=r"no tokenizer in folder .*expected a file such as tok"
    ):
        load_model(tmp_path)
    model = load_model(tmp_path, device="cpu", tokenizer=str(model_folder))
    assert (
        model.tokenize("hello").ids.tolist()
        == load_model(model_folder).tokenize("hello").ids.tolist()
    )


def test_tokenizer_that_knows_no_text(tmp_path, model_folder):
    from transformer_lens.model_bridge import TransformerBridge

    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_folder / name, tmp_path)
    junk = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    assert junk.to_tokens("hello world").tolist() == [[0, 0]]
    with pytest.raises(
        TokenizerError, match="tokenizer of 1 tokens gives 'hello world' back as ''"
    ):
        load_model(junk)


def test_live_model_without_tokenizer():
    with pytest.raises(TokenizerError, match="the model has no tokenizer"):
        check_tokenizer(SimpleNamespace(tokenizer=None))


def test_tokenizer_object_without_a_name(model_folder):
    tokenizer = tiny_tokenizer()
    del tokenizer.init_kwargs["name_or_path"], tokenizer.init_kwargs["add_bos_token"]
    model = load_model(model_folder, device="cpu", tokenizer=tokenizer)
    assert model.tokenize("hello world").bos
    assert model.provenance()["tokenizer"]["name"] is None


def test_tokenizer_that_is_not_there(model_folder):
    with pytest.raises(TokenizerError, match=r"no tokenizer at '\./nothing'"):
        load_model(model_folder, device="cpu", tokenizer="./nothing")


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_tokens(model_folder, prepend_bos):
    model = load_model(model_folder, device="cpu", prepend_bos=prepend_bos)
    tokens = model.tokenize("the cat")
    assert tokens.ids.dtype == np.int32
    assert tokens.bos is prepend_bos
    assert not tokens.truncated
    assert model.model.tokenizer.decode(tokens.ids[int(prepend_bos) :].tolist()) == "the cat"
    assert model.provenance()["prepend_bos"] is prepend_bos


def test_bos_is_what_the_architecture_does_unless_said():
    assert load_model(tiny_model("gpt2")).prepend_bos is True
    assert load_model(tiny_model("neox")).prepend_bos is False


def test_bos_written_in_the_text_is_not_the_librarys(make_model):
    assert not make_model(prepend_bos=False).tokenize(f"{BOS}hello").bos
    with_bos = make_model().tokenize(f"{BOS}hello")
    assert with_bos.bos
    assert with_bos.ids.tolist()[:2] == [0, 0]


def test_tokenizer_without_bos_prepends_nothing(tmp_path, model_folder):
    folder = folder_with(tmp_path, model_folder, words_tokenizer())
    model = load_model(folder, device="cpu", prepend_bos=True)
    tokens = model.tokenize("the cat")
    assert tokens.ids.tolist() == [1, 2]
    assert not tokens.bos


@pytest.mark.parametrize("prepend_bos", [True, False])
@pytest.mark.parametrize(("extra", "truncated"), [(0, False), (1, True), (100, True)])
def test_truncation(make_model, prepend_bos, extra, truncated):
    model = make_model(prepend_bos=prepend_bos)
    n_words = N_CTX - prepend_bos + extra
    tokens = model.tokenize("z" * n_words)
    assert len(tokens.ids) == N_CTX
    assert tokens.truncated is truncated
    assert tokens.bos is prepend_bos
    assert set(tokens.ids[1:].tolist()) == {int(tokens.ids[-1])}


def test_truncated_text_of_an_encoder_keeps_its_closing_token(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", "bert")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    bert_tokenizer().save_pretrained(folder)
    tokens = load_model(folder, device="cpu").tokenize("the cat sat " * 40)
    assert tokens.truncated
    assert len(tokens.ids) == N_CTX
    assert tokens.ids[[0, 1, 2, -1]].tolist() == [2, 5, 6, 3]
    assert tokens.bos


def test_prompt_without_tokens(make_model):
    with pytest.raises(PromptError, match="prompt '' has no tokens"):
        make_model(prepend_bos=False).tokenize("")
    assert make_model().tokenize("").ids.tolist() == [0]


def test_token_that_the_model_does_not_know():
    bridge = tiny_model()
    bridge.tokenizer.add_tokens(["<new>"])
    with pytest.raises(
        PromptError, match=r"'a <new>' has token id 300, but .* embeddings for 300;"
    ):
        load_model(bridge).tokenize("a <new>")


# --- vocabulary ----------------------------------------------------------------------------------


def test_vocab_of_bytes(make_model):
    model = make_model()
    vocab = model.vocab()
    assert len(vocab["token"]) == len(vocab["text"]) == 300
    shown = dict(zip(vocab["token"], vocab["text"], strict=True))
    assert shown["Ġthe"] == " the"
    assert shown["Ċ"] == "\n"
    assert shown[BOS] == BOS
    assert shown["Ã"] == "Ã"  # half of a letter
    assert not any("\ufffd" in text for text in vocab["text"])
    ids = model.tokenize("the dog,\n who is there?").ids[1:]
    assert "".join(vocab["text"][i] for i in ids) == "the dog,\n who is there?"


def test_vocab_of_sentencepiece():
    from tokenizers import Tokenizer, decoders, models

    backend = Tokenizer(models.BPE({"\u2581the": 0, "the": 1, "<0x0A>": 2, "<0xE2>": 4}, []))
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokens = ["\u2581the", "the", "<0x0A>", None, "<0xE2>"]
    tokenizer = SimpleNamespace(
        backend_tokenizer=backend,
        get_vocab=backend.get_vocab,
        convert_ids_to_tokens=lambda ids: [tokens[i] for i in ids],
    )
    assert vocabulary(tokenizer) == {
        "token": ["\u2581the", "the", "<0x0A>", "", "<0xE2>"],
        "text": [" the", "the", "\n", "", "<0xE2>"],
    }


def test_vocab_of_a_slow_tokenizer_is_that_of_the_fast_one():
    fast = tiny_tokenizer()
    slow = SimpleNamespace(
        get_vocab=fast.get_vocab,
        convert_ids_to_tokens=fast.convert_ids_to_tokens,
        decode=fast.decode,
    )
    assert vocabulary(slow) == vocabulary(fast)
    assert len(tokenizer_hash(slow)) == 32


def test_tokenizer_hash_does_not_depend_on_the_last_call():
    tokenizer = tiny_tokenizer()
    before = tokenizer_hash(tokenizer)
    tokenizer(["the cat", "the"], padding=True, truncation=True, max_length=5)
    assert tokenizer_hash(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_hash(tokenizer) != before


# --- provenance ----------------------------------------------------------------------------------


def test_provenance(model_folder):
    found = load_model(model_folder, device="cpu").provenance()
    assert set(found) == PROVENANCE
    text = json.dumps(found, allow_nan=False)
    assert str(model_folder.parent) not in text
    assert "/" not in text
    versions = found.pop("versions")
    assert set(versions) == {"python", "pattern_lens", "torch", "transformers", "transformer_lens"}
    assert found == {
        "name": "tiny-gpt2",
        "n_layers": 3,
        "n_heads": 4,
        "d_model": 32,
        "n_ctx": 64,
        "dtype": "float32",
        "architecture": "GPT2LMHeadModel",
        "weights": {"mode": "raw"},
        "weights_hash": found["weights_hash"],
        "revision": None,
        "source": "tiny-gpt2",
        "attention": "eager",
        "causal": True,
        "prepend_bos": True,
        "padding": "right",
        "tokenizer": {"class": found["tokenizer"]["class"], "name": "tiny-gpt2"},
        "tokenizer_hash": found["tokenizer_hash"],
    }
    assert (len(found["weights_hash"]), len(found["tokenizer_hash"])) == (16, 32)


def test_revision_is_the_commit_where_it_is_known(model_folder):
    assert load_model(model_folder, device="cpu", revision="main").revision == "main"
    bridge = tiny_model()
    bridge.original_model.config._commit_hash = "0123abcd"
    assert load_model(bridge).provenance()["revision"] == "0123abcd"


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_models_that_look_ahead_need_a_mask(make_model, kind):
    model = make_model(kind)
    found = model.provenance()
    assert not model.causal
    assert (found["causal"], found["padding"]) == (False, "right with attention mask")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("google/gemma-2b", "google-gemma-2b"), ("gpt2", "gpt2"), ("a b:c", "a-b-c"), ("..", "model")],
)
def test_file_stem(name, stem):
    bridge = tiny_model()
    bridge.cfg.model_name = name
    assert load_model(bridge).file_stem == stem
