import subprocess
import sys

import pytest

MODULE = """
import my_helpers
from my_helpers import plus

class Number:
    def __init__(self, value):
        self.value = value

def figures(items):
    for item in items:
        yield Number(plus(item) + my_helpers.TWO)
"""

HELPERS = """
TWO = 2

def plus(number):
    return number + 1
"""

SCRIPT = """
from pattern_lens.mapping import run_batches

OFFSET = 10

class Number:
    def __init__(self, value):
        self.value = value

def figures(items):
    for item in items:
        yield Number(item + OFFSET)

found = list(run_batches(figures, [[1], [2]], {options}))
assert all(isinstance(outcome.results[0], Number) for outcome in found)
print(sorted(outcome.results[0].value for outcome in found))
"""


def options_of(workers):
    return ", ".join(f"{name}={value!r}" for name, value in workers.items())


def python(*arguments, **options):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("way", ["file", "-c", "stdin"])
def test_a_script_without_a_main_guard(workers, tmp_path, way):
    script = SCRIPT.format(options=options_of(workers))
    (tmp_path / "script.py").write_text(script)
    if way == "file":
        done = python(str(tmp_path / "script.py"))
    elif way == "-c":
        done = python("-c", script)
    else:
        done = python("-", input=script)
    assert (done.stdout, done.stderr, done.returncode) == ("[11, 12]\n", "", 0)


def test_a_module_that_workers_cannot_import(workers, tmp_path):
    (tmp_path / "my_figures.py").write_text(MODULE)
    (tmp_path / "my_helpers.py").write_text(HELPERS)
    code = (
        "import my_figures; from pattern_lens.mapping import run_batches; "
        f"done, = run_batches(my_figures.figures, [[1, 2]], {options_of(workers)}); "
        "print(*(type(n) is my_figures.Number and n.value for n in done.results))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("4 5\n", "")


def test_a_module_of_which_not_everything_can_be_sent_goes_by_name(tmp_path):
    (tmp_path / "locked.py").write_text(
        "from threading import Lock\nLOCK = Lock()\n"
        "def figures(items):\n    with LOCK:\n        yield from items\n"
    )
    code = (
        "import locked; from pattern_lens.mapping import run_batches; "
        "print(*(o.results for o in run_batches(locked.figures, [[1, 2]], n_workers=1)))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("(1, 2)\n", "")


def test_what_users_registered_with_cloudpickle_stays_registered(tmp_path, monkeypatch):
    import importlib

    from cloudpickle import register_pickle_by_value, unregister_pickle_by_value
    from cloudpickle.cloudpickle import list_registry_pickle_by_value

    from pattern_lens.mapping.sending import packed

    (tmp_path / "a_module_of_mine.py").write_text("def one():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("a_module_of_mine")
    before = {*list_registry_pickle_by_value()}
    packed(module.one, what="it")
    assert {*list_registry_pickle_by_value()} == before
    register_pickle_by_value(module)
    packed(module.one, what="it")
    assert "a_module_of_mine" in list_registry_pickle_by_value()
    unregister_pickle_by_value(module)
