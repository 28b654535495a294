"""What the commands of pattern-lens 0.6 have in common: models between commas, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pattern_lens.errors import PatternLensError

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED: Final = 130


def each_model(models: str, run: Callable[[str], int], say: Callable[[str], None]) -> int:
    """Run something for each model; returns the exit status, 1 where one failed.

    Parameters
    ----------
    models
        Names between commas.
    run
        Gives the exit status of one model.
    say
        Tells what went wrong.
    """
    status = 0
    for model in (name.strip() for name in models.split(",")):
        if not model:
            continue
        try:
            status |= run(model)
        except KeyboardInterrupt as stop:
            say("; ".join(["interrupted", *getattr(stop, "__notes__", [])]))
            return _INTERRUPTED
        except (PatternLensError, OSError) as err:
            say(f"error: {err}")
            status = 1
    return status
