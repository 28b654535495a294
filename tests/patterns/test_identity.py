"""A function is the same one in every process, so that what it left unfinished goes on."""

import os
import subprocess
import sys

import pytest

OURS = "from pattern_lens.residual.attribution_over import closure_of as function"
NO_SOURCE = """exec('''def function(array):
    names = [n for n in array.coords if n in {"layer", "head", "prompt", "query"}]
    return sum(sorted(names, key=lambda n: n[::-1]))
''')"""
OTHER = NO_SOURCE.replace("::-1", "::-2")


def code_of(definition: str, seed: str) -> str:
    script = (
        f"junk = ['x' * i for i in range({int(seed) * 999})]\n{definition}\n"
        "from pattern_lens.patterns.identity import describe_function\n"
        "print(describe_function(function, {'a': 1})['code'])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


@pytest.mark.parametrize("definition", [OURS, NO_SOURCE], ids=["ours", "without source"])
def test_a_function_is_the_same_in_every_process(definition: str) -> None:
    assert len({code_of(definition, seed) for seed in ("1", "2", "3")}) == 1


def test_what_a_function_inside_does_counts() -> None:
    assert code_of(NO_SOURCE, "1") != code_of(OTHER, "1")
