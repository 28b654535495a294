"""What the file of a view holds of the residual stream, and what of it can be asked.

The rule: answers on it are made one at a time, whoever asks: each holds a block of logits, of all the vocabulary.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

from pattern_lens.errors import (
    AnswerTokenError,
    OutOfRangeError,
    PatternLensError,
    UnknownAddressError,
)
from pattern_lens.names import LAYER, RESIDUAL_STREAM
from pattern_lens.residual.attribution import NAME as ATTRIBUTION
from pattern_lens.residual.attribution import Unit, plan_of
from pattern_lens.residual.inputs import (
    LN_FINAL_SCALE,
    NEURONS,
    POS_EMBED,
    RESID_PRE,
    ModelFacts,
    check_needs,
    weight_of,
)
from pattern_lens.residual.lens import NAME as LENS
from pattern_lens.residual.lens import lens_plan
from pattern_lens.residual.over_prompts import Asked
from pattern_lens.residual.stored import WeightsOfFile
from pattern_lens.residual.tokens import token_id
from pattern_lens.run import StoredActivations

if TYPE_CHECKING:
    from pattern_lens.residual.tokens import Vocabulary
    from pattern_lens.server.view import View
    from pattern_lens.store.reader import StoredArray

UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
BY_ID: Final = "~"
"""In an address, what stands before the id of a token; without it, the token's text."""

_LONGEST_TOKEN: Final = 200
_ONE_AT_A_TIME: Final = threading.Lock()


class StreamsOfFile:
    """The residual stream of one file.

    Parameters
    ----------
    view
        What is shown of the file.
    """

    def __init__(self, view: View) -> None:
        self.lock = _ONE_AT_A_TIME
        self._view = view
        self._names = {*RESIDUAL_STREAM, NEURONS} & set(view.names)
        self.arrays: dict[str, StoredArray] = {
            name: view.reader.array(name) for name in sorted(self._names)
        }
        self.activations = StoredActivations(view.reader, None)
        self.weights = WeightsOfFile(view.reader)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Texts of all tokens."""
        return self._view.vocabulary

    @cached_property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return ModelFacts.of(self.weights.dataset)

    def streams(self) -> list[str]:
        """Labels of the streams that the logit lens reads, the first one first.

        Raises
        ------
        RawWeightsError, UnknownActivationError, WeightsMissingError
            It cannot be asked of this file; the message says what to do.
        """
        plan = lens_plan(self.facts, incl_mid=False)
        check_needs(plan.needs, self._held(), LENS)
        self._check_weight("W_U", LENS)
        return [component.label for component in plan.components]

    def why_not(self, unit: Unit | None = None) -> str | None:
        """Why the logit lens, or attribution to a unit, cannot be asked of the file; None where it can."""
        try:
            self.streams() if unit is None else self.check_unit(unit)
        except PatternLensError as err:
            return str(err)
        return None

    def check_unit(self, unit: Unit) -> None:
        """Raise unless a logit can be shared out to these parts; errors as those of `streams`."""
        self._check_weight("W_U", ATTRIBUTION)
        if unit == "head":
            self._check_weight("W_O", ATTRIBUTION)
        plan = plan_of(
            self.facts, self.weights.dataset, unit, has_pos_embed=POS_EMBED in self.arrays
        )
        check_needs({**plan.needs, LN_FINAL_SCALE: None}, self._held(), ATTRIBUTION)

    def _held(self) -> dict[str, tuple[int, ...] | None]:
        return {
            name: array.layout.layers if LAYER in array.layout.dims else None
            for name, array in self.arrays.items()
        }

    def _check_weight(self, name: str, who: str) -> None:
        if name not in self.weights.dataset:
            weight_of(self.weights.dataset, name, who)  # says what to do

    # --- one prompt ------------------------------------------------------------------------------

    def has(self, position: int) -> bool:
        """Whether there are streams of a prompt."""
        array = self.arrays.get(RESID_PRE)
        return array is not None and array.row_of(position) is not None

    def n_pos(self, position: int, key: str) -> int:
        """Positions of a prompt's streams.

        Raises
        ------
        UnknownAddressError
            There are none of it.
        """
        array = self.arrays.get(RESID_PRE)
        row = None if array is None else array.row_of(position)
        if array is None or row is None:
            raise UnknownAddressError(
                f"no residual stream of prompt {key!r} in {self._view.name}: capture it with names='residual'"
            )
        return array.sizes(row)[0]

    def asked(self, position: int, pos: Any) -> Asked:
        """An analysis of one prompt at some positions."""
        prompt_hash = self._view.prompts.hashes([position])[0]
        return Asked(self.activations, self.weights, prompt_hash, pos)

    def checksums(self, position: int) -> list[tuple[str, int]]:
        """What tells the streams of a prompt, and the weights that read them, from others."""
        rows = {name: array.row_of(position) for name, array in self.arrays.items()}
        found = [
            (n, int(self.arrays[n].rows[row]["checksum"]))
            for n, row in rows.items()
            if row is not None
        ]
        return [*found, *((name, 0) for name in self.weights.seen)]

    # --- what an address says --------------------------------------------------------------------

    def token(self, text: str) -> int:
        """The id of a token: its exact text, or its id behind ``~``.

        Raises
        ------
        AnswerTokenError
            It names no single token.
        """
        return token_id(_read_token(text), self.weights.dataset, self.vocabulary)

    def named(self, number: int) -> dict[str, Any]:
        """A token with its text."""
        return {"id": number, "text": self.vocabulary.text(number)}


def token_of(view: View, text: str) -> int:
    """The id of a token that an address names, in a file that need not hold weights.

    Raises
    ------
    AnswerTokenError
        It names no single token.
    """
    found = _read_token(text)
    vocabulary = view.vocabulary
    if isinstance(found, str):
        return vocabulary.id(found)
    if not found < len(vocabulary.texts):
        raise AnswerTokenError(
            f"no token {found}: expected an id from 0 to {len(vocabulary.texts) - 1}"
        )
    return found


def _read_token(text: str) -> int | str:
    """An id, or the exact text."""
    if len(text) > _LONGEST_TOKEN:
        raise AnswerTokenError(f"{text[:40]!r}… has {len(text):,} characters, which is no token")
    number = text.removeprefix(BY_ID)
    is_id = number != text and number.isascii() and number.isdecimal()
    return int(number) if is_id else text


def position_of(text: str, n_pos: int) -> int:
    """A position from an address; none is the last.

    Raises
    ------
    OutOfRangeError
        There is none of this number.
    """
    if not text:
        return n_pos - 1
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < n_pos):
        raise OutOfRangeError(f"no position {text[:20]!r}: expected 0 to {n_pos - 1}")
    return int(text)
