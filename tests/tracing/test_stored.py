"""Traces read back: padded and labelled, nodes and edges found without a table of all, differences kept lazy."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.cli import main
from pattern_lens.errors import UnknownPromptError, UnknownTraceError
from pattern_lens.store import chunks
from pattern_lens.store.block import Block
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file
from pattern_lens.tracing import tables
from pattern_lens.tracing.nodes import INDICES, KINDS
from pattern_lens.tracing.result import TraceResult
from pattern_lens.tracing.stored import Traces, open_trace, open_traces
from pattern_lens.tracing.writing import SPEC, block_of, fitted, spec_values, trace_layouts

N_TOKENS = [5, 3, 8, 3, 5, 1]


@pytest.fixture
def traces(traced):
    with open_traces(traced.path) as opened:
        yield opened


@pytest.fixture
def effects(traces):
    return traces["effects"]


def padded(values, like):
    """What a variable should be: each prompt's values, and NaN behind them."""
    found = np.full(like.shape, np.nan)
    for at, one in enumerate(values):
        found[(at, *(slice(n) for n in np.shape(one)))] = one
    return found


def every_node(traced, trace, kind, by, labels):
    """All nodes of a kind with one measure, as an oracle finds them: one after the other."""
    prefix = {"latent": "toy.sae.latent", "sae_error": "toy.sae.error"}.get(kind, kind)
    rows = []
    for prompt, values in traced.values[trace][f"{prefix}_{by}"].items():
        for at in product(*map(range, values.shape)):
            place = dict(zip(KINDS[kind].dims, at, strict=True))
            if place.get("key", 0) <= place.get("query", 0):
                place = {dim: labels.get(dim, range(99))[i] for dim, i in place.items()}
                rows.append((abs(values[at]), float(values[at]), prompt, place))
    return sorted(rows, key=lambda row: -row[0])


# --- values --------------------------------------------------------------------------------------


def test_values_are_padded_with_nan(traced, traces):
    for name, variables in traced.values.items():
        found = traces[name]
        hashes = found["prompt"].values.tolist()
        assert hashes == [traced.hashes[i] for i in ({"ablated": (0, 1, 3, 4)}.get(name, range(6)))]
        for variable in variables.keys() - {SPEC}:
            values = [variables[variable][prompt] for prompt in hashes]
            np.testing.assert_array_equal(found[variable], padded(values, found[variable]))


def test_labels_are_those_of_the_prompts(traced, effects):
    reader = StoreReader(traced.path)
    for at, n in enumerate(N_TOKENS):
        own = effects.isel(prompt=at)
        assert own["token"].values.tolist() == [*reader.tokens(at), *[""] * (8 - n)]
        assert own["key_token"].values.tolist() == own["query_token"].values.tolist()
        assert own["n_ctx"] == n
    assert effects["token"].sel(pos=2).values.tolist()[1:3] == [reader.tokens(1)[2], " the"]
    reader.close()
    assert effects["layer"].values.tolist() == [0, 1, 2]
    assert effects["head"].values.tolist() == [0, 1, 2, 3]
    assert effects["source"].values.tolist() == ["embed", "L0H1", "0_mlp_out", "L1H2"]


def test_what_each_prompt_was_asked_is_there(traces):
    found = traces["ablated"].isel(prompt=1)
    assert json.loads(str(found["spec"].values))["trace"]["path"] == "K"
    assert str(found["target_token"].values) == " cat"
    assert str(found["distractor_token"].values) == " sat, the"
    assert traces["ablated"].spec["ablate"][0]["site"] == "z"
    assert (found.attrs["trace"], found.attrs["model"]) == ("ablated", "random")


def test_nothing_is_read_before_it_is_asked_for(traces, monkeypatch):
    read = []
    restore = chunks._restore
    monkeypatch.setattr(
        chunks,
        "_restore",
        lambda data, layout, at, rows: (
            read.append((layout.name, at)) or restore(data, layout, at, rows)
        ),
    )
    found = traces["effects"]
    text = repr(found) + found._repr_html_()
    assert "head_direct_effect" in text
    chosen = found["neuron_activation"].sel(layer=2).isel(prompt=0, pos=slice(1, 3))
    assert {name for name, _ in read} <= {"effects/spec"}  # of the first prompt
    read.clear()
    assert chosen.shape == chosen.values.shape == (2, 7)
    assert read == [("effects/neuron_activation", (2, 0, 0))]


@pytest.mark.parametrize(
    "chosen",
    [
        {"layer": 1, "prompt": 2},
        {"layer": [2, 0], "head": 3, "query": slice(1, 4)},
        {"prompt": [4, 1], "layer": slice(None, None, 2), "key": 0},
        {"head": [1, 3], "prompt": slice(0, 0)},
        {"layer": -1, "query": [0, 0, 2]},
    ],
)
def test_parts_are_those_of_the_whole(effects, chosen):
    lazy = effects["pair_direct_effect"].isel(chosen)
    whole = effects["pair_direct_effect"].load().isel(chosen)
    np.testing.assert_array_equal(lazy.values, whole.values)


def test_what_is_taken_of_it_is_of_its_class(effects):
    for one in (
        effects.isel(prompt=0),
        effects.sel(layer=1),
        effects[["objective"]],
        effects.copy(),
    ):
        assert isinstance(one, TraceResult)
    assert effects.isel(prompt=0).spec == effects.spec


def test_one_trace_with_prompts_in_the_order_asked_for(traced):
    asked = [traced.hashes[i] for i in (4, 1, 4)]
    with open_trace(traced.path, "ablated", prompts=asked) as found:
        assert found["prompt"].values.tolist() == asked[:2]
        values = traced.values["ablated"]["objective"]
        assert found["objective"].values.tolist() == [values[h] for h in asked[:2]]
    with pytest.raises(
        UnknownPromptError, match=rf"{traced.hashes[2]!r} is not traced in 'ablated'"
    ):
        open_trace(traced.path, "ablated", prompts=[traced.hashes[0], traced.hashes[2]])
    with pytest.raises(UnknownPromptError, match="no prompt 'x'"):
        open_trace(traced.path, "ablated", prompts=["x"])


def test_a_trace_without_prompts(traced):
    with StoreWriter(traced.path, None, traces={"planned": {"objective": "each prompt's own"}}):
        pass
    with open_traces(traced.path) as opened:
        assert opened["planned"].sizes == {"prompt": 0}
        assert opened.table.set_index("name").loc["planned", "objective"] == "each prompt's own"
        with pytest.raises(UnknownTraceError, match="its measures are none"):
            opened["planned"].nodes()


# --- nodes ---------------------------------------------------------------------------------------

LABELS = {"feature": (3, 17, 4, 90)}


@pytest.mark.parametrize("read_bytes", [1, 1 << 25])
@pytest.mark.parametrize(
    ("trace", "kind", "by"),
    [
        ("effects", "pair", "direct_effect"),
        ("effects", "head", "write_magnitude"),
        ("effects", "neuron", "estimated_total_effect"),
        ("effects", "mlp", "direct_effect"),
        ("effects", "embed", "estimated_total_effect"),
        ("ablated", "attn", "estimated_total_effect"),
        ("ablated", "latent", "activation"),
        ("ablated", "sae_error", "estimated_total_effect"),
    ],
)
def test_the_largest_nodes(traced, traces, trace, kind, by, read_bytes, monkeypatch):
    monkeypatch.setattr(tables, "_READ_BYTES", read_bytes)
    done = traces[trace]["prompt"].values
    expected = [row for row in every_node(traced, trace, kind, by, LABELS) if row[2] in done]
    for k in (1, 6, 10_000):
        table = traces[trace].nodes(by, k, kinds=[kind])
        assert len(table) == min(k, len(expected))
        assert table[by].tolist() == [row[1] for row in expected[:k]]
        assert table["prompt"].tolist() == [row[2] for row in expected[:k]]
        for number, (*_, place) in enumerate(expected[:20][:k]):
            own = table.loc[number, list(INDICES)].dropna().to_dict()
            assert own == place


def test_columns_of_the_table(traced, effects):
    table = effects.nodes("direct_effect", 3, kinds=["pair"])
    measures = ["activation", "estimated_total_effect", "direct_effect"]
    first = ["label", "kind", "prompt", *INDICES, "token", "key_token"]
    assert table.columns.tolist() == [*first, *measures]
    row = table.iloc[0]
    own = effects.sel(prompt=row["prompt"], layer=row["layer"], head=row["head"])
    own = own.sel(query=row["query"], key=row["key"])
    assert row["label"] == f"L{row['layer']}H{row['head']}"
    assert (row["token"], row["key_token"]) == (
        str(own["query_token"].values),
        str(own["key_token"].values),
    )
    for measure in measures:
        assert row[measure] == float(own[f"pair_{measure}"])
    assert pd.isna(row["neuron"])
    assert table["layer"].dtype == "Int64"


@pytest.mark.parametrize(
    ("trace", "kind", "label"),
    [
        ("effects", "neuron", "L{layer}N{neuron}"),
        ("effects", "mlp", "{layer}_mlp_out"),
        ("effects", "embed", "embed"),
        ("ablated", "attn", "{layer}_attn_out"),
        ("ablated", "latent", "toy.saeF{feature}"),
        ("ablated", "sae_error", "toy.sae.error"),
    ],
)
def test_labels_of_nodes(traces, trace, kind, label):
    for row in traces[trace].nodes(k=4, kinds=[kind]).to_dict("records"):
        assert row["label"] == label.format(**row)


def test_the_finest_kinds_by_default(traces):
    def kinds(trace, by):
        return set(traces[trace].nodes(by, 10_000)["kind"])

    assert kinds("effects", "estimated_total_effect") == {"pair", "neuron", "embed"}
    assert kinds("effects", "write_magnitude") == {"head", "mlp", "embed"}
    assert kinds("ablated", "estimated_total_effect") == {
        "head",
        "mlp",
        "embed",
        "latent",
        "sae_error",
    }


def test_the_largest_in_one_direction(effects):
    table = effects.nodes("direct_effect", 10_000, kinds=["head"], absolute=False)
    values = effects["head_direct_effect"].values
    assert table["direct_effect"].tolist() == sorted(
        values[~np.isnan(values)].tolist(), reverse=True
    )


@pytest.mark.parametrize("prompt", [2, -4])
def test_nodes_of_one_prompt(traced, effects, prompt):
    by_number = effects.nodes("direct_effect", 5, prompt=prompt)
    assert set(by_number["prompt"]) == {traced.hashes[2]}
    by_hash = effects.nodes("direct_effect", 5, prompt=traced.hashes[2])
    pd.testing.assert_frame_equal(by_number, by_hash)
    alone = effects.isel(prompt=2).nodes("direct_effect", 5)
    pd.testing.assert_frame_equal(by_number, alone)


def test_nodes_where_an_index_was_chosen(effects):
    chosen = effects.sel(layer=2, query=[4, 1]).isel(head=3)
    table = chosen.nodes("direct_effect", 10_000, kinds=["head"])
    expected = effects["head_direct_effect"].sel(layer=2, head=3, query=[1, 4]).values
    assert sorted(table["direct_effect"]) == sorted(expected[~np.isnan(expected)].tolist())
    assert set(table["label"]) == {"L2H3"}
    assert set(table["query"]) == {1, 4}


def test_nan_is_last_and_padding_is_no_node(effects):
    loaded = effects[["mlp_direct_effect"]].load()
    loaded["mlp_direct_effect"][1, 2, 0] = np.nan
    table = loaded.nodes("direct_effect", 10_000)
    assert len(table) == 3 * sum(N_TOKENS)
    assert table["direct_effect"].isna().tolist() == [False] * (len(table) - 1) + [True]
    last = table.iloc[-1]
    assert (last["prompt"], last["label"], last["pos"]) == (
        str(effects["prompt"].values[1]),
        "2_mlp_out",
        0,
    )
    assert len(loaded.nodes("direct_effect", 0)) == 0


def test_other_words_are_measures_too(effects):
    more = effects.assign(
        head_change=effects["head_direct_effect"] * 2, head_sum=("layer", [1, 2, 3])
    )
    table = more.nodes("change", 2)
    assert table.columns.tolist()[-4:] == [
        "write_magnitude",
        "estimated_total_effect",
        "direct_effect",
        "change",
    ]
    assert table["change"].tolist() == [2 * value for value in table["direct_effect"]]


def test_what_is_not_there_is_said(effects):
    with pytest.raises(UnknownTraceError, match=r"no latent nodes in trace 'effects': it has pair"):
        effects.nodes(kinds=["latent"])
    with pytest.raises(
        UnknownTraceError, match=r"no 'gradient' in .*: its measures are activation"
    ):
        effects.nodes("gradient")
    with pytest.raises(UnknownTraceError, match=r"no 'activation' of mlp in trace 'effects'"):
        effects.nodes("activation", kinds="mlp")
    with pytest.raises(UnknownPromptError, match=r"no prompt 6 in trace 'effects', which is of 6"):
        effects.nodes(prompt=6)
    near = str(effects["prompt"].values[0])
    with pytest.raises(UnknownPromptError, match=f"nearest: {near}"):
        effects.nodes(prompt=near[:-1] + "!")


def test_latents_of_two_autoencoders(tmp_path):
    path = tmp_path / "file.h5"
    write_random_file(path, names=("pattern",), n_tokens=(3, 2))
    examples = {
        f"{sae}.latent_activation": xr.DataArray(
            np.arange(3 * len(features), dtype=np.float32).reshape(3, -1) * (1 + len(features)),
            dims=("pos", "feature"),
            coords={"feature": features},
        )
        for sae, features in {"a": [5, 9], "b.mlp": [1, 5, 8]}.items()
    }
    layouts = trace_layouts("t", examples, {})
    each = zip(layouts, examples.values(), strict=True)
    with StoreWriter(path, None, layouts, traces={"t": {}}) as writer:
        writer.commit_computed([0], {one.key: block_of(one, [fitted(one, v)]) for one, v in each})
    with open_traces(path) as opened:
        found = opened["t"]
        assert found["b.mlp.latent_activation"].dims == ("prompt", "pos", "feature_of_b.mlp")
        table = found.nodes("activation", 2)
        assert table["label"].tolist() == ["b.mlpF8", "b.mlpF5"]
        assert table["feature"].tolist() == [8, 5]
        assert found.nodes("activation", 99)["label"].tolist().count("aF9") == 3


# --- edges ---------------------------------------------------------------------------------------


def test_edges_of_a_node(traced, effects):
    values = np.stack(list(traced.values["effects"]["edges"].values()))
    into = effects.in_edges("L2H3", k=5)
    assert into.columns.tolist() == ["source", "target", "prompt", "direct_effect"]
    largest = sorted(values[:, :, 1].ravel().tolist(), key=abs, reverse=True)
    assert into["direct_effect"].tolist() == largest[:5]
    row = into.iloc[0]
    edges = effects["edges"].sel(prompt=row["prompt"], source=row["source"], target="L2H3")
    assert row["direct_effect"] == float(edges)
    out = effects.out_edges("0_mlp_out", prompt=3)
    assert set(out["prompt"]) == {traced.hashes[3]}
    assert sorted(out["direct_effect"]) == sorted(values[3, 2].tolist())


def test_edges_that_are_not_there(traces, effects):
    with pytest.raises(UnknownTraceError, match=r"no edges with the target 'L2H4' .*nearest: L2H3"):
        effects.in_edges("L2H4")
    with pytest.raises(UnknownTraceError, match="no edges in trace 'ablated': trace again"):
        traces["ablated"].out_edges("embed")


# --- several traces ------------------------------------------------------------------------------


def test_traces_by_name(traced, traces):
    assert list(traces) == ["ablated", "effects"]
    assert "effects" in traces
    assert "other" not in traces
    with pytest.raises(UnknownTraceError, match=r"no trace 'other' in .*: it holds ablated, eff"):
        traces["other"]
    table = traces.table.set_index("name")
    assert table.columns.tolist() == [
        "prompts",
        "objective",
        "traced",
        "ablated",
        "scalars",
        "created",
    ]
    row = table.loc["ablated"]
    assert (row["prompts"], row["objective"]) == (4, "logit_diff")
    assert (row["traced"], row["ablated"]) == ("L2H3@-1,0:K", "L1H0=mean")
    assert row["created"] == "2026-11-05T09:30:00+00:00"
    assert "effects: 6 prompts · logit_diff" in repr(traces)
    assert "<td style='text-align:left'>L1H0=mean</td>" in traces._repr_html_()


def test_what_is_kept_of_it_is_not_changed_by_whoever_has_it(traces):
    traces["effects"].attrs["trace"] = "mine"
    del traces["effects"]["objective"]
    assert traces["effects"].attrs["trace"] == "effects"
    assert "objective" in traces["effects"]


def test_names_from_a_file_are_escaped(traced):
    StoreWriter(traced.path, None, traces={"<b>": {"objective": {"kind": "<i>"}}}).close()
    with open_traces(traced.path) as opened:
        html = opened._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<i>" not in html
    assert "closed" in repr(opened)


def test_differences(traces):
    found = traces.differences("effects", "ablated")
    assert found.keys() == {"ablate", "scalars", "trace"}
    assert found["ablate"][0] == []
    assert found["trace"][1]["path"] == "K"
    assert traces.differences("effects", "effects") == {}


def test_differences_between_prompts(traced):
    reader = StoreReader(traced.path)
    layout = reader.trace_array("ablated", SPEC).layout
    reader.close()
    spec = {"objective": {"kind": "probs", "position": 2}, "ablate": [], "tokens": {"target": [2]}}
    value = fitted(layout, spec_values(spec))
    examples = {SPEC: spec_values(spec)}
    for name, kind in {"one": "probs", "other": "zero"}.items():
        own = {**spec, "objective": {"kind": kind, "position": 2}}
        (layout,) = trace_layouts(name, examples, {})
        blocks = [value, fitted(layout, spec_values(own))]
        with StoreWriter(traced.path, None, [layout], traces={name: {"ablate": []}}) as writer:
            writer.commit_computed([1, 4], {layout.key: block_of(layout, blocks)})
    with open_traces(traced.path) as opened:
        found = opened.differences("one", "other")
    assert found == {f"objective.kind, prompt {traced.hashes[4]}": ("probs", "zero")}


def test_comparison(traced, traces):
    found = traces.compare("effects", "ablated")
    assert isinstance(found, TraceResult)
    assert found["prompt"].values.tolist() == [traced.hashes[i] for i in (0, 1, 3, 4)]
    assert {"head_direct_effect", "mlp_write_magnitude", "objective"} <= {*found.data_vars}
    assert not {"node_value", "edges", "pair_activation"} & {*found.data_vars}
    a, b = (traces[name].sel(prompt=found["prompt"].values) for name in ("effects", "ablated"))
    for name in found.data_vars:
        expected = (
            b[name].values
            - a[name].isel({d: slice(5) for d in a[name].dims if d in ("pos", "query")}).values
        )
        np.testing.assert_array_equal(found[name].values, expected)
    one = found["head_direct_effect"].isel(prompt=2, layer=[1], head=3)
    np.testing.assert_array_equal(one.values, found["head_direct_effect"].values[2, [1], 3])
    assert (found.attrs["a"], found.attrs["b"]) == ("effects", "ablated")
    assert json.loads(found.attrs["differences"]).keys() == {"ablate", "scalars", "trace"}
    largest = found.nodes("direct_effect", 1, kinds=["mlp"])["direct_effect"].item()
    assert abs(largest) == np.nanmax(abs(found["mlp_direct_effect"].values))


# --- from the file -------------------------------------------------------------------------------


def test_a_run_has_them(traced):
    with pl.open_run(traced.path) as run:
        assert isinstance(run.traces, Traces)
        assert "traces ablated, effects" in repr(run)
        assert "traces: ablated, effects" in run._repr_html_()
        xr.testing.assert_identical(run.traces["ablated"], open_trace(traced.path, "ablated"))
        reader = StoreReader(traced.path)
        layouts = [
            reader.trace_array("ablated", v).layout for v in reader.trace_variables("ablated")
        ]
        reader.close()
        with StoreWriter(traced.path, None, layouts) as writer:
            blocks = {}
            for layout in layouts:
                shape = layout.stored_shape(layout.length(1, 1))
                data = np.zeros(shape, layout.stored_dtype)
                blocks[layout.key] = Block([(1, 1)], data)
            blocks["traces/ablated/spec"] = Block([(2, 1)], np.frombuffer(b"{}", np.uint8))
            writer.commit_computed([5], blocks)
        assert run.traces["ablated"].sizes["prompt"] == 4
        assert run.refresh().traces["ablated"].sizes["prompt"] == 5


def test_info_on_the_command_line(traced, capsys):
    assert main(["info", str(traced.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line.split() for line in lines if line.startswith("ablated"))
    assert row[:6] == ["ablated", "4", "logit_diff", "L2H3@-1,0:K", "L1H0=mean", "18"]
