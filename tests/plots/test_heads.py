import holoviews as hv
import numpy as np
import pytest
from bokeh.models import GlyphRenderer, Image

import pattern_lens as pl
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.mosaic import read_mosaic


def test_every_tile_is_where_its_layer_and_head_are(patterns, seen):
    overview, _ = seen.figures(pl.plot_heads(patterns))
    picture = seen.image(overview)
    assert picture.shape == (2 * 7, 3 * 7)
    tile = picture[7:, 14:]
    np.testing.assert_array_equal(tile[1:-1, 1:-1], patterns.values[1, 2])
    assert np.isnan(tile[0]).all()
    assert np.isnan(tile[:, -1]).all()
    assert seen.ticks(overview) == (["L0", "L1"], ["H0", "H1", "H2"])


def test_any_number_of_heads_is_one_glyph(patterns, seen):
    overview, _ = seen.figures(pl.plot_heads(patterns))
    glyphs = [type(r.glyph) for r in overview.select({"type": GlyphRenderer})]
    assert glyphs.count(Image) == 1
    assert len(glyphs) == 2  # and the frame of the head that is large


def test_the_large_head(patterns, seen):
    _, detail = seen.figures(pl.plot_heads(patterns, large="L1H2"))
    np.testing.assert_array_equal(seen.image(detail), patterns.values[1, 2])
    assert detail.title.text == "L1H2"
    assert seen.ticks(detail)[1][1] == "1: ␣the"


def test_numbers_of_chosen_layers_stay(patterns, seen):
    plot = pl.plot_heads(patterns.isel(layer=[1], head=[2, 0]), large="L1H0")
    overview, detail = seen.figures(plot)
    assert seen.ticks(overview) == (["L1"], ["H2", "H0"])
    np.testing.assert_array_equal(seen.image(detail), patterns.values[1, 0])


def test_one_layer(patterns, seen):
    plot = pl.plot_heads(patterns.sel(layer=1))
    overview, _ = seen.figures(plot)
    assert seen.ticks(overview) == (["L1"], ["H0", "H1", "H2"])
    assert plot.data.pattern.dims == ("layer", "head", "query", "key")


def test_without_bos(patterns):
    tiles = pl.plot_heads(patterns, bos=False).data.pattern
    np.testing.assert_array_equal(tiles[1, 0], without_bos(patterns[1, 0]))


def test_long_prompts_are_pooled_and_say_so(patterns, monkeypatch, seen):
    monkeypatch.setattr("pattern_lens.plots.mosaic.MOST_CELLS", 6 * 9)
    plot = pl.plot_heads(patterns, large="L1H2")
    _, detail = seen.figures(plot)
    assert plot.data.pattern.shape == (2, 3, 3, 3)
    assert plot.data["query"].values.tolist() == [0, 2, 4]
    assert plot.data.pattern.values[1, 2, 2, 0] == patterns.values[1, 2, 4, :2].max()
    assert "largest of 2x2" in plot.view.traverse(lambda x: x, [hv.Image])[0].vdims[0].name
    assert seen.image(detail).shape == (5, 5)  # the head that is large is whole


def test_layers_are_read_one_by_one(patterns):
    seen_layers = []

    class Watched(type(patterns)):
        __slots__ = ()

        def isel(self, *args, **kwargs):
            seen_layers.append(args[0] if args else kwargs)
            return super().isel(*args, **kwargs)

    mosaic = read_mosaic(Watched(patterns), size=640, large=420)
    assert {"layer": 0} in seen_layers
    assert {"layer": 1} in seen_layers
    np.testing.assert_array_equal(mosaic.tiles, patterns.values)


def test_a_live_view_reads_the_head_that_is_tapped(patterns):
    view = pl.plot_heads(patterns).view
    (live,) = view.traverse(lambda x: x, [hv.DynamicMap])
    live.event(x=2.2, y=0.9)
    shown = live[()]
    np.testing.assert_array_equal(shown.dimension_values(2, flat=False), patterns.values[1, 2])


def test_a_tap_beside_the_tiles_is_no_error(patterns):
    (live,) = pl.plot_heads(patterns).view.traverse(lambda x: x, [hv.DynamicMap])
    live.event(x=-9, y=99)
    np.testing.assert_array_equal(live[()].dimension_values(2, flat=False), patterns.values[1, 0])


@pytest.mark.slow
def test_a_tile_that_is_tapped_is_large_in_a_page(patterns, look):
    script = """const said = await hover(first, 2, 1); await tap(first, 2, 1)
    return [said, [...image(second)], second.model.title.text, glyph(second, "Image").glyph.color_mapper.high]"""
    said, values, title, high = look(pl.plot_heads(patterns), script)
    value = str(patterns.values[1, 2, 2, 2])
    assert said == f"head: L1H2 query: 2: ⏎ key: 2: ⏎ attention (probability): {value}"
    np.testing.assert_array_equal(np.float32(values).reshape(5, 5), patterns.values[1, 2])
    assert title == "L1H2"
    assert high == 1


@pytest.mark.slow
def test_a_pooled_tile_says_so_in_a_page(patterns, look, monkeypatch):
    monkeypatch.setattr("pattern_lens.plots.mosaic.MOST_CELLS", 6 * 9)
    script = "await tap(first, 1, 0); return [second.model.title.text, second.model.right[0].title, image(second).shape]"
    said = ["L0H1", "attention (probability), largest of 2x2", [3, 3]]
    assert look(pl.plot_heads(patterns), script) == said
