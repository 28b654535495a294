import numpy as np
import pytest
from bokeh.models import GlyphRenderer, Quad

import pattern_lens as pl


def heights(figure):
    quads = [r for r in figure.select({"type": GlyphRenderer}) if isinstance(r.glyph, Quad)]
    return quads[0].data_source.data["top"]


def test_the_map_is_the_mean_over_prompts(scores, seen):
    overview, _ = seen.figures(pl.plot_scores(scores))
    np.testing.assert_allclose(seen.image(overview), scores.mean("prompt"), rtol=1e-6)
    assert seen.ticks(overview) == (["L0", "L1"], ["H0", "H1", "H2"])


@pytest.mark.parametrize("statistic", ["median", "min", "max", "std"])
def test_another_statistic(scores, seen, statistic):
    overview, _ = seen.figures(pl.plot_scores(scores, over_prompts=statistic))
    expected = getattr(scores, statistic)("prompt")
    np.testing.assert_allclose(seen.image(overview), expected, rtol=1e-6)


def test_the_distribution_is_of_the_highest_head(scores, seen):
    plot = pl.plot_scores(scores)
    _, detail = seen.figures(plot)
    highest = scores.mean("prompt").argmax(...)
    layer, head = int(highest["layer"]), int(highest["head"])
    assert detail.title.text == f"L{layer}H{head} · 19 prompts"  # one lacks the result
    expected, _ = np.histogram(
        scores.values[np.isfinite(scores.values[:, 0, 0])][:, layer, head],
        np.histogram_bin_edges(scores.values[np.isfinite(scores.values)], 30),
    )
    np.testing.assert_array_equal(heights(detail), expected)
    np.testing.assert_array_equal(plot.data["count"][layer, head], expected)
    assert plot.data["count"].sum("bin").values.tolist() == [[19] * 3] * 2


def test_one_number_a_head_has_a_map_alone(scores, seen):
    plot = pl.plot_scores(scores.mean("prompt"))
    assert len(seen.figures(plot)) == 1
    assert list(plot.data) == ["score"]


def test_one_layer_of_a_result(scores, seen):
    overview, _ = seen.figures(pl.plot_scores(scores.sel(layer=1)))
    assert seen.ticks(overview) == (["L1"], ["H0", "H1", "H2"])


def test_whole_numbers(scores, seen):
    overview, _ = seen.figures(pl.plot_scores((scores.fillna(0) * 10).astype(np.int32)))
    assert seen.image(overview).dtype == np.float32


def test_a_head_without_numbers_is_empty(scores, seen):
    scores[:, 0, 1] = np.nan
    with np.errstate(all="ignore"):
        overview, _ = seen.figures(pl.plot_scores(scores))
    assert np.isnan(seen.image(overview)[0, 1])


def test_stored_results(demo_file, tmp_path, seen):
    import shutil

    from pattern_lens.measures import entropy, induction_score

    path = shutil.copy(demo_file, tmp_path / "own.h5")
    with pl.open_patterns(path) as patterns:
        patterns.map(induction_score, name="induction", progress=False, n_workers=1)
        patterns.map(entropy, name="entropy", progress=False, n_workers=1)
    results = pl.open_results(path)
    overview, detail = seen.figures(pl.plot_scores(results["induction"]))
    assert seen.image(overview).shape == (4, 8)
    assert overview.title.text.startswith("induction")
    assert "35 prompts" in detail.title.text
    assert pl.plot_scores(results["entropy"].mean("query")).data.score.shape == (4, 8)


@pytest.mark.slow
def test_a_head_that_is_tapped_shows_its_distribution(scores, look):
    plot = pl.plot_scores(scores)
    script = """const said = await hover(first, 1, 0); await tap(first, 1, 0)
    return [said, second.model.title.text, glyph(second, "Quad").data_source.data.top]"""
    said, title, top = look(plot, script)
    assert said.startswith("head: L0H1 mean over prompts: 0.")
    assert " median 0." in said
    assert title == "L0H1 · 19 prompts"
    assert top == plot.data["count"][0, 1].values.tolist()
