"""From an address to an answer: the one table of what there is under ``api/`` (docs/web.md).

The rule: an address is split by these patterns alone, and nothing of it becomes a path of the file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import (
    AnswerTokenError,
    HeadSelectionError,
    OutOfRangeError,
    RawWeightsError,
    ResidualError,
    UnknownActivationError,
    UnknownAddressError,
    UnknownColourMapError,
    UnknownFigureError,
    UnknownPromptError,
    WeightsMissingError,
)
from pattern_lens.server import (
    figure_answers,
    model_answers,
    pattern_answers,
    score_answers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pattern_lens.server.answers import Answer
    from pattern_lens.server.view import View

    Query = Mapping[str, str]
    Make = Callable[[View, "Parts", Query], Answer]
    Parts = Mapping[str, Any]

UNKNOWN: Final = (
    UnknownAddressError,
    UnknownPromptError,
    UnknownFigureError,
    UnknownColourMapError,
    HeadSelectionError,
    OutOfRangeError,
    AnswerTokenError,
    RawWeightsError,
    ResidualError,
    UnknownActivationError,
    WeightsMissingError,
)
"""Errors that say that an address names something that is not there."""


def _residual(name: str, *arguments: Any) -> Answer:
    """An answer on the residual stream; what makes it is imported when one is asked for."""
    from pattern_lens.server import residual_answers

    return getattr(residual_answers, name)(*arguments)  # type: ignore[no-any-return]


_PROMPT: Final = r"prompt/(?P<prompt>~?[A-Za-z0-9_-]{1,80})"
_LABEL: Final = r"(?P<label>[A-Za-z0-9]{1,24})"
_FIGURE: Final = (
    r"figures/(?P<name>[^/]{1,200})/(?P<label>[A-Za-z0-9]{1,24})\.(?P<fmt>[a-z0-9]{1,16})"
)

_OF_MODEL: Final[tuple[tuple[str, Make], ...]] = (
    (r"model\.json", lambda v, _p, _q: model_answers.about_model(v)),
    (
        r"prompts/(?P<block>[0-9]{1,9})\.json",
        lambda v, p, _q: model_answers.block(v, int(p["block"])),
    ),
    (_PROMPT + r"\.json", lambda v, p, _q: model_answers.prompt(v, p["prompt"])),
    (r"functions\.json", lambda v, _p, _q: figure_answers.functions(v)),
    (r"figures\.json", lambda v, p, _q: figure_answers.figures(v, p["model"], None)),
    (
        _PROMPT + r"/figures\.json",
        lambda v, p, _q: figure_answers.figures(v, p["model"], p["prompt"]),
    ),
    (
        rf"(?:{_PROMPT}/)?{_FIGURE}",
        lambda v, p, _q: figure_answers.figure(v, p["prompt"], p["name"], p["label"], p["fmt"]),
    ),
    (r"scores\.json", lambda v, _p, _q: score_answers.scores(v)),
    (_PROMPT + r"/scores\.json", lambda v, p, _q: score_answers.prompt_scores(v, p["prompt"])),
    (
        rf"{_PROMPT}/similar/{_LABEL}\.json",
        lambda v, p, _q: pattern_answers.similar(v, p["prompt"], p["label"]),
    ),
    (
        _PROMPT + r"/pictures/L(?P<layer>[0-9]{1,6})\.npy",
        lambda v, p, _q: pattern_answers.pictures_of_layer(v, p["prompt"], int(p["layer"])),
    ),
    (
        rf"{_PROMPT}/pattern/{_LABEL}\.packed\.npy",
        lambda v, p, _q: pattern_answers.packed(v, p["prompt"], p["label"]),
    ),
    (r"residual\.json", lambda v, _p, _q: _residual("about", v)),
    (
        _PROMPT + r"/lens/(?P<block>[0-9]{1,9})\.json",
        lambda v, p, _q: _residual("lens_block", v, p["prompt"], int(p["block"])),
    ),
)

_LIVE_ONLY: Final[tuple[tuple[str, Make], ...]] = (
    (r"prompts\.json", lambda v, _p, q: model_answers.search(v, q.get("find", ""))),
    (r"tokens\.json", lambda v, _p, q: _residual("find_tokens", v, q.get("find", ""))),
    (
        _PROMPT + r"/lens\.json",
        lambda v, p, q: _residual("lens_of_tokens", v, p["prompt"], q),
    ),
    (
        _PROMPT + r"/attribution\.json",
        lambda v, p, q: _residual("attribution", v, p["prompt"], q),
    ),
    (
        _PROMPT + r"/pictures\.npy",
        lambda v, p, q: pattern_answers.pictures_of_heads(v, p["prompt"], q.get("heads", "x")),
    ),
    (
        rf"{_PROMPT}/pattern/{_LABEL}\.npy",
        lambda v, p, _q: pattern_answers.dense(v, p["prompt"], p["label"]),
    ),
    (
        rf"{_PROMPT}/pattern/{_LABEL}\.png",
        lambda v, p, q: pattern_answers.png(
            v, p["prompt"], p["label"], q.get("cmap", "viridis"), q.get("scale", "linear")
        ),
    ),
    (
        rf"{_PROMPT}/pattern/{_LABEL}\.nc",
        lambda v, p, _q: pattern_answers.netcdf(v, p["prompt"], p["label"]),
    ),
)

_TABLE: Final = tuple(
    (re.compile(pattern, re.ASCII), make) for pattern, make in (*_OF_MODEL, *_LIVE_ONLY)
)
_SPLIT: Final = re.compile(r"(?P<model>[A-Za-z0-9_.@-]{1,200})/(?P<rest>.+)", re.DOTALL)


def split(address: str) -> tuple[str, str]:
    """Model id and the rest of an address below ``api/``.

    Raises
    ------
    UnknownAddressError
        It names no model.
    """
    match = _SPLIT.fullmatch(address)
    if match is None:
        raise UnknownAddressError(nothing_at(f"api/{address}"))
    return match["model"], match["rest"]


def answer(view: View, model_id: str, rest: str, query: Query) -> Answer:
    """What a file answers on the rest of an address.

    Parameters
    ----------
    rest
        What stands behind ``api/{model}/``, percent-decoded.

    Raises
    ------
    UnknownAddressError, UnknownPromptError, HeadSelectionError, OutOfRangeError, UnknownColourMapError
        There is nothing at this address; the message says what there is.
    """
    for pattern, make in _TABLE:
        match = pattern.fullmatch(rest)
        if match is not None:
            return make(view, {**match.groupdict(), "model": model_id}, query)
    raise UnknownAddressError(nothing_at(f"api/{model_id}/{rest}"))


def nothing_at(address: str) -> str:
    """The sentence on an address that is none."""
    shown = address if len(address) <= 100 else f"{address[:99]}…"
    return f"nothing at {shown!r}: api/index.json lists the models, docs/web.md the addresses"
