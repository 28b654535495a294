"""docs/tracing.md: every scalar and objective is there, and what it writes as labels can be read."""

import re
from pathlib import Path

import pytest

from pattern_lens.tracing import parse_ablation, parse_trace
from pattern_lens.tracing.objectives import KINDS
from pattern_lens.tracing.patching import PATCHING_DIMS
from pattern_lens.tracing.scalars import SCALARS

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text("utf-8")


@pytest.mark.parametrize("name", SCALARS)
def test_every_scalar_is_defined(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_is_there(kind):
    assert f"`{kind}(" in PAGE


def test_labels_can_be_read():
    nodes = re.findall(r"`([^`{} ]+@-?\d+(?:,-?\d+:\w+)?(?:>[^`]+)?)`", PAGE)
    nodes = [one for one in nodes if ":" in one or "N" in one or "C" in one]
    assert {"L3H5@7,4:K", "L3H5@7,4:V>L5H1@9,7:K", "L3N17@5", "3_postC12@5"} <= {*nodes}
    for label in nodes:
        assert parse_trace(label).label == label
    table = PAGE.split("| label | what is set |")[1].split("\n\n")[0]
    labels = [one for one in re.findall(r"`([^`]+)`", table) if "…" not in one and one != "z"]
    assert len(labels) >= 10
    for label in labels:
        assert parse_ablation(label).label == label


def test_patching_is_as_the_page_says():
    assert PATCHING_DIMS["attn_head_pattern_by_pos"] == ("layer", "head", "query")
