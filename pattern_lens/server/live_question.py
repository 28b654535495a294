"""What an address asks of a model: read once, in the grammar of the command line, before anything is computed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import SpecificationError
from pattern_lens.server.streams import BY_ID, position_of, token_of
from pattern_lens.tracing.ablations import parse_ablation
from pattern_lens.tracing.objectives import Objective, logit_diff, logit_minus_mean
from pattern_lens.tracing.traces import parse_trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pattern_lens.server.view import View

_SEPARATORS: Final = re.compile(r"[~;\s]+")
_MOST_ABLATIONS: Final = 64


@dataclass(frozen=True)
class Question:
    """One prompt, and what is asked of it.

    Attributes
    ----------
    text, token_ids
        The prompt, and its tokens in the file.
    place
        The position whose next token is asked about.
    target, distractor
        Ids of tokens; None where none is given.
    ablate, node
        Labels of ablations and of the traced node, as the library writes them.
    """

    text: str
    token_ids: tuple[int, ...]
    place: int
    target: int | None
    distractor: int | None
    ablate: tuple[str, ...]
    node: str | None

    @classmethod
    def of(cls, view: View, key: str, query: Mapping[str, str]) -> Question:
        """The question of an address.

        Raises
        ------
        AnswerTokenError, SpecificationError, OutOfRangeError, UnknownAddressError
            Something that is not there, or not said in this grammar.
        """
        position = view.position(key)
        token_ids = view.prompts.token_ids(position).tolist()
        tokens = {
            which: token_of(view, query[which]) if query.get(which) else None
            for which in ("target", "distractor")
        }
        return cls(
            text=view.prompts.texts([position])[0],
            token_ids=tuple(token_ids),
            place=position_of(query.get("position", ""), len(token_ids)),
            ablate=_ablations(query.get("ablate", "")),
            node=parse_trace(query["node"]).label if query.get("node") else None,
            **tokens,
        )

    def with_target(self, token: int) -> Question:
        """The same with a target."""
        return replace(self, target=token)

    @property
    def n_ctx(self) -> int:
        """Tokens of the prompt."""
        return len(self.token_ids)

    @property
    def forward(self) -> tuple[str, ...]:
        """Ablations that change what the model says; those of gradients do not."""
        return tuple(one for one in self.ablate if not one.startswith("backward:"))

    def objective(self) -> Objective | None:
        """What is differentiated; None where a node is."""
        if self.node is not None and not self.node.endswith(":V"):
            return None
        if self.target is None:
            raise SpecificationError("no target token: expected target=, such as target=%20Mary")
        if self.distractor is None:
            return logit_minus_mean(self.target, position=self.place)
        return logit_diff(self.target, self.distractor, position=self.place)

    def said(self, view: View) -> dict[str, Any]:
        """The objective with the texts of its tokens."""
        tokens = {"target": self.target, "distractor": self.distractor}
        return {
            "kind": "logit_minus_mean" if self.distractor is None else "logit_diff",
            **{name: [] if n is None else [view.token(n)] for name, n in tokens.items()},
            "position": self.place,
        }

    def as_asked(self) -> dict[str, Any]:
        """What an address says of it."""
        return {
            "target": f"{BY_ID}{self.target}",
            "distractor": None if self.distractor is None else f"{BY_ID}{self.distractor}",
            "position": self.place,
            "ablate": list(self.ablate),
            "node": self.node,
        }

    def check_tokens(self, token_ids: NDArray[Any]) -> None:
        """Raise unless the model cuts the prompt into the tokens that the file holds."""
        if tuple(token_ids.tolist()) != self.token_ids:
            raise SpecificationError(
                f"the prompt has {self.n_ctx} tokens in the file, and other ones here ({len(token_ids)}): the server's model has "
                "another tokenizer, or puts a BOS where the file has none; serve this file alone"
            )


def _ablations(text: str) -> tuple[str, ...]:
    """Labels of several ablations, each once; they stand between ``~``, blanks or semicolons."""
    words = [word for word in _SEPARATORS.split(text) if word]
    if len(words) > _MOST_ABLATIONS:
        raise SpecificationError(
            f"{len(words)} ablations at once: expected at most {_MOST_ABLATIONS}; ask for more from Python"
        )
    return tuple(dict.fromkeys(parse_ablation(word).label for word in words))
