import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import GlyphRenderer, HoverTool, LogColorMapper

import pattern_lens as pl
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.heat_map import pooled


def test_the_matrix_and_both_labels(pattern, seen):
    plot = pl.plot_pattern(pattern)
    (figure,) = seen.figures(plot)
    np.testing.assert_array_equal(seen.image(figure), pattern.values)
    rows, columns = seen.ticks(figure)
    assert rows == columns
    assert rows[1] == "1: ␣the"
    assert rows[4] == "4: ␣the"
    assert (figure.y_range.start, figure.y_range.end) == (4.5, -0.5)  # queries go down
    assert figure.title.text == "L1H2 · tiny · <b>the</b> text"
    assert figure.select_one(HoverTool) is not None


def test_what_is_shown_is_data(pattern):
    plot = pl.plot_pattern(pattern)
    xr.testing.assert_identical(plot.data["pattern"].drop_vars(()), pattern)
    assert repr(plot).startswith("<Plot 'L1H2 · tiny · <b>the</b> text' (query: 5, key: 5)")


def test_a_rectangle_with_labels_of_its_own(pattern, seen):
    some = pattern.isel(query=[3, 1])
    (figure,) = seen.figures(pl.plot_pattern(some))
    assert seen.image(figure).shape == (2, 5)
    assert seen.ticks(figure)[0] == ["3: <script>alert(1…", "1: ␣the"]
    assert figure.frame_width > figure.frame_height


def test_dims_of_size_1_and_another_order(patterns, seen):
    one = patterns.isel(layer=[1], head=[2]).transpose("key", "query", ...)
    (figure,) = seen.figures(pl.plot_pattern(one))
    np.testing.assert_array_equal(seen.image(figure), patterns.values[1, 2])


def test_one_token(patterns, seen):
    (figure,) = seen.figures(pl.plot_pattern(patterns[0, 0, :1, :1]))
    assert seen.image(figure).tolist() == [[1]]


def test_rows_without_bos_have_the_sum_that_is_left(pattern):
    without = without_bos(pattern)
    assert np.isnan(without.values[:, 0]).all()
    assert np.isnan(without.values[0]).all()  # the first query sees the BOS alone
    np.testing.assert_allclose(without.sum("key")[1:], 1, rtol=1e-6)
    ratio = pattern.values[4, 3] / pattern.values[4, 1]
    assert without.values[4, 3] / without.values[4, 1] == pytest.approx(ratio, rel=1e-5)


def test_a_page_keeps_what_bos_leaves_out(pattern, seen):
    plot = pl.plot_pattern(pattern, bos=False)
    (figure,) = seen.figures(plot)
    np.testing.assert_array_equal(seen.image(figure), without_bos(pattern).values)
    source = figure.select_one(GlyphRenderer).data_source
    np.testing.assert_array_equal(source.data["whole"][0], pattern.values)


def test_log_and_limits(pattern, seen):
    (figure,) = seen.figures(pl.plot_pattern(pattern, log=True, clim=(0.01, 1), cmap="cividis"))
    mapper = seen.mapper(figure)
    assert isinstance(mapper, LogColorMapper)
    assert (mapper.low, mapper.high, mapper.palette[0]) == (0.01, 1, "#00224d")


def test_scores_before_the_softmax(pattern, seen):
    masked = xr.where(pattern > 0, pattern - 0.3, -np.inf, keep_attrs=True)
    (figure,) = seen.figures(pl.plot_pattern(masked))
    mapper = seen.mapper(figure)
    assert mapper.low == -mapper.high
    assert mapper.high == pytest.approx(0.7)


def test_more_cells_than_are_drawn(monkeypatch, pattern, seen):
    monkeypatch.setattr("pattern_lens.plots.pattern.step_for", lambda *_: 2)
    plot = pl.plot_pattern(pattern)
    (figure,) = seen.figures(plot)
    shown = seen.image(figure)
    assert shown.shape == (3, 3)
    assert shown[2, 0] == pattern.values[4, :2].max()
    assert figure.x_range.end == 4.5
    assert len(seen.ticks(figure)[1]) == 5


def test_the_largest_of_each_block():
    values = np.array([[[1, np.nan, 3], [0, 0, np.nan]]])
    np.testing.assert_array_equal(pooled(values, 2), [[[1, 3]]])


def test_only_that_head_is_read(demo_file, monkeypatch):
    from pattern_lens.patterns import arrays

    shapes = []
    read = arrays.read_values

    def watched(array, row, wanted):
        shapes.append(wanted.shape)
        return read(array, row, wanted)

    monkeypatch.setattr(arrays, "read_values", watched)
    with pl.open_patterns(demo_file) as patterns:
        one = patterns[next(iter(patterns))].sel(layer=1, head=3)
        plot = pl.plot_pattern(one)
        assert shapes == [(45, 45)]
        np.testing.assert_array_equal(plot.data.pattern, one)


def test_the_view_can_be_laid_out(pattern):
    layout = pl.plot_pattern(pattern).view + pl.plot_pattern(pattern, log=True).view
    drawn = hv.render(layout, backend="bokeh")
    assert len(list(drawn.select({"type": GlyphRenderer}))) == 2
    assert len(list(drawn.select({"type": HoverTool}))) >= 1


@pytest.mark.slow
def test_hover_says_both_tokens_and_the_exact_value(pattern, look):
    said = look(pl.plot_pattern(pattern), "return await hover(first, 3, 4)")
    value = str(pattern.values[4, 3])
    assert said == f"query: 4: ␣the key: 3: <script>alert(1… attention (probability): {value}"


@pytest.mark.slow
def test_the_button_leaves_out_the_first_key(pattern, look):
    script = """
    await press("leave out key 0: <BOS>"); const without = [...image(first)], high = glyph(first, "Image").glyph.color_mapper.high
    await press("leave out key 0: <BOS>"); return [without, high, [...image(first)]]"""
    without, high, back = look(pl.plot_pattern(pattern), script)
    expected = without_bos(pattern).values
    shown = np.array(without, dtype=float).reshape(5, 5)
    np.testing.assert_allclose(shown, expected, rtol=1e-6)
    assert high == pytest.approx(np.nanmax(expected), rel=1e-6)
    np.testing.assert_array_equal(np.float32(back).reshape(5, 5), pattern.values)
