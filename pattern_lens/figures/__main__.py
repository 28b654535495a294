"""``python -m pattern_lens.figures``: draw figures with the flags of pattern-lens 0.6."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.consts import DATA_DIR
from pattern_lens.each_model import each_model
from pattern_lens.errors import MapWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

_YES: Final = ("true", "yes", "y", "on", "1")
_NO: Final = ("false", "no", "n", "off", "0")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw for each model; returns the exit status, 1 where a model or a figure failed."""
    options = vars(_parser().parse_args(argv))
    return each_model(options.pop("model"), lambda model: _draw(model, options), _say)


def _draw(model: str, options: dict[str, Any]) -> int:
    from pattern_lens.figures.predecessor import figures_main

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)  # said below
        report = figures_main(model, **options)
    print(report.summary())  # noqa: T201
    for what in report.failures:
        _say(what)
    return int(bool(report.n_failed))


def _say(what: str) -> None:
    print(f"pattern_lens.figures: {what}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pattern_lens.figures",
        description="Draw figures with the flags of pattern-lens 0.6, into SAVE_PATH/MODEL.h5. "
        "'pattern-lens figures' can do more, such as drawing figures of your own: --from FILE.py.",
    )
    add = parser.add_argument
    add("--model", "-m", required=True, help="names of models, between commas")
    add("--save-path", "-s", default=DATA_DIR, help=f"folder of the files (default: {DATA_DIR})")
    add("--n-samples", "-n", type=int, help="draw for so many prompts (default: all)")
    add(
        "--force",
        "-f",
        nargs="?",
        type=_yes_or_no,
        const=True,
        default=False,
        metavar="yes|no",
        help="draw again what is there",
    )
    add(
        "--figure-funcs",
        dest="figure_funcs_select",
        type=_listed,
        metavar="NAMES",
        help="names or globs of figure functions, between commas (default: raw, which is drawn when somebody looks)",
    )
    return parser


def _yes_or_no(text: str) -> bool:
    word = text.strip().lower()
    if word not in (*_YES, *_NO):
        raise argparse.ArgumentTypeError(f"expected yes or no, or nothing, got {text!r}")
    return word in _YES


def _listed(text: str) -> list[str] | None:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return None if not names or [name.lower() for name in names] == ["none"] else names


if __name__ == "__main__":
    sys.exit(main())
