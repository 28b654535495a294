"""What a page loads before its first picture: all that this needs, and nothing more."""

import re

import pytest

from pattern_lens.server.pages import VIEWS, Application, imported


@pytest.fixture(scope="module")
def application():
    return Application()


def preloaded(page):
    found = re.findall(r'rel="modulepreload" href="\./static/js/([^?"]+)', page.data.decode())
    return [f"pattern-lens/{name}" for name in found]


@pytest.mark.parametrize("name", VIEWS)
def test_a_page_preloads_what_its_view_imports(application, name):
    names = preloaded(application.page(name))
    modules = application.modules()
    assert {"pattern-lens/main.js", VIEWS[name]} < set(names)
    for one in names:
        statements = re.findall(r'from "(pattern-lens/[^"]+)"', modules[one].data.decode())
        assert set(statements) <= set(names), one


def test_a_page_does_not_preload_the_other_view(application):
    pages = {name: set(preloaded(application.page(name))) for name in VIEWS}
    for name, names in pages.items():
        others = {module for page, module in VIEWS.items() if page != name}
        assert not others & names
        if name != "index.html":
            assert not [one for one in names if one.startswith("pattern-lens/gallery/")]


def test_modules_that_are_imported_later_are_not_among_them(application):
    modules = application.modules()
    assert 'await import("tabulator")' in modules["pattern-lens/gallery/table.js"].data.decode()
    assert "tabulator" not in imported(modules, *VIEWS.values())


def test_the_first_answers_are_asked_for_with_the_page(application):
    text = application.page().data.decode()
    for answer in ("api/index.json", "api/colours.json"):
        assert f'<link rel="preload" as="fetch" href="{answer}" crossorigin>' in text
