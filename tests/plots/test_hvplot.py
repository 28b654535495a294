"""Plain hvplot on our lazy arrays, as its users expect it."""

import numpy as np
import pytest

import pattern_lens as pl

hv = pytest.importorskip("holoviews")
pytest.importorskip("hvplot.xarray", reason="pip install 'pattern-lens[plots]'")


@pytest.fixture(scope="module")
def opened(demo_file):
    with pl.open_patterns(demo_file) as patterns:
        yield patterns


@pytest.fixture
def lazy(opened):
    return opened[next(iter(opened))]


def drawn(view):
    return hv.render(view, backend="bokeh")


def matrix(view):
    return view.dimension_values("pattern", flat=False)


@pytest.mark.parametrize("kind", ["image", "quadmesh"])
def test_kinds_of_matrix(lazy, kind):
    one = lazy.sel(layer=3, head=5)
    view = getattr(one.hvplot, kind)(x="key", y="query")
    np.testing.assert_array_equal(matrix(view), one)
    assert drawn(view)


def test_heatmap(lazy):
    view = lazy.sel(layer=3, head=5).hvplot.heatmap(
        x="key", y="query", C="pattern", flip_yaxis=True
    )
    assert len(view) == 45 * 45
    assert drawn(view)


def test_one_head_alone(lazy):
    assert drawn(lazy.sel(layer=3, head=5).hvplot())


def test_one_layer_as_in_the_docs(lazy):
    assert drawn(lazy.sel(layer=3).hvplot())


@pytest.mark.parametrize("dynamic", [True, False])
def test_widgets_for_layer_and_head(lazy, dynamic):
    view = lazy.hvplot.image(x="key", y="query", groupby=["layer", "head"], dynamic=dynamic)
    assert [d.name for d in view.kdims] == ["layer", "head"]
    np.testing.assert_array_equal(matrix(view[2, 6]), lazy.sel(layer=2, head=6))


def test_widgets_read_only_what_is_shown(lazy, monkeypatch):
    from pattern_lens.patterns import arrays

    shapes = []
    read = arrays.read_values

    def watched(array, row, wanted):
        shapes.append(wanted.shape)
        return read(array, row, wanted)

    monkeypatch.setattr(arrays, "read_values", watched)
    view = lazy.hvplot.image(x="key", y="query", groupby=["layer", "head"])
    before = len(shapes)
    drawn(view[1, 2])
    read_cells = sum(int(np.prod(shape)) for shape in shapes[before:])
    assert read_cells <= 4 * 45 * 45


def test_rasterize(lazy):
    pytest.importorskip("datashader")
    view = lazy.sel(layer=3, head=5).hvplot.image(x="key", y="query", rasterize=True)
    assert drawn(view)


def test_a_profile(lazy):
    view = lazy.sel(layer=3, head=5).isel(query=-1).hvplot.line(x="key")
    np.testing.assert_array_equal(view.dimension_values("pattern"), lazy.sel(layer=3, head=5)[-1])


def test_a_reduced_collection(opened):
    focus = opened.max("key").mean("query")  # DataArray (prompt, layer, head)
    assert drawn(
        focus.mean("prompt").rename("focus").hvplot.heatmap(x="head", y="layer", C="focus")
    )
    assert drawn(focus.sel(layer=1).rename("focus").hvplot.violin(y="focus", by="head"))
