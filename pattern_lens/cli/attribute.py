"""``pattern-lens attribute``: which parts of a model make it say one token rather than another.

Rule: a token is its exact text, because a file holds the vocabulary and not the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.cli.output import DONE, print_json, print_table
from pattern_lens.cli.parser import add_command, add_file, count, listed
from pattern_lens.wording import counted

if TYPE_CHECKING:
    import argparse

    from pattern_lens.residual.readings import Attribution

_UNITS: Final = ("component", "layer", "head", "neuron")


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "attribute",
        _run,
        summary="say which parts of a model make it say one token rather than another",
        epilog="""examples:
  pattern-lens attribute gpt2.h5 --answer ' Mary' --distractor ' John'
  pattern-lens attribute gpt2.h5 --prompt C7p4x9-iwFxWSKCb8kbLfQ \\
      --answer ' Mary' --unit head --top 20 -o heads.html
  pattern-lens attribute gpt2.h5 --answer ' Mary' --unit layer

A token is its exact text, with the space before it. Without --prompt it is the
answer of all prompts; of several the mean is shown, and how far they differ.
The file has to hold what 'pattern-lens capture --weights compatibility
--names residual' stores. Write --prompt=HASH if a hash begins with '-'.""",
        usage="%(prog)s FILE --answer TOKEN [options]",
    )
    add_file(parser)
    _add_tokens(parser)
    _add_what(parser)


def _add_tokens(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whose logit is attributed")
    answer = group.add_mutually_exclusive_group(required=True)
    answer.add_argument("--answer", metavar="TOKEN", help="text of the token, such as ' Mary'")
    answer.add_argument("--answer-id", type=int, metavar="ID", help="its id instead")
    other = group.add_mutually_exclusive_group()
    other.add_argument(
        "--distractor", metavar="TOKEN", help="a token whose logit is taken off, such as ' John'"
    )
    other.add_argument("--distractor-id", type=int, metavar="ID", help="its id instead")


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("of what, and where to").add_argument
    add(
        "--prompt",
        dest="prompts",
        type=listed,
        action="extend",
        metavar="HASH",
        help="hash of a prompt, or several between commas; may be repeated (default: all)",
    )
    add("--unit", choices=_UNITS, default="component", help="the parts (default: component)")
    add(
        "--position",
        type=int,
        default=-1,
        metavar="N",
        help="position that predicts the token; negative from the end (default: -1)",
    )
    add("--top", type=count, default=10, metavar="K", help="parts to show (default: 10)")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PAGE",
        help="draw it, too, into a file that ends in .html, .png or .svg",
    )
    add("--store", metavar="NAME", help="store the numbers in the file as a result of this name")


def _run(args: argparse.Namespace) -> int:
    from pattern_lens.run import open_run

    answer = args.answer if args.answer_id is None else args.answer_id
    distractor = args.distractor if args.distractor_id is None else args.distractor_id
    stored = {"name": args.store, "progress": not args.quiet} if args.store else {}
    prompts = list(dict.fromkeys(args.prompts)) if args.prompts else None
    if prompts and len(prompts) == 1 and not args.store:
        prompts = prompts[0]  # of one prompt the file holds more to say, such as its text
    with open_run(args.file) as run:
        found = run.direct_logit_attribution(
            prompts, answer, distractor, unit=args.unit, pos=args.position, **stored
        )
        said = _logit_of(answer, distractor)
        if args.output:
            _draw(found, args, said)
        report = _print_json if args.json else _print_tables
        report(found, args, said)
    return DONE


def _logit_of(answer: str | int, distractor: str | int | None) -> str:
    return repr(answer) if distractor is None else f"{answer!r} - {distractor!r}"


def _draw(found: Attribution, args: argparse.Namespace, said: str) -> None:
    if args.unit == "layer":
        from pattern_lens.plots.accumulated import plot_accumulated

        plot_accumulated(found, title=said).save(args.output)
    else:
        from pattern_lens.plots.attribution import plot_attribution

        plot_attribution(found, n=min(args.top, 200), title=said).save(args.output)


def _rows(found: Attribution, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The parts that count most; streams, which do not add up, in the model's order."""
    n = found.scores.sizes["component"] if args.unit == "layer" else args.top
    table = found.top(n, absolute=True)
    if args.unit == "layer":
        table = table.loc[found.scores["component"].values]
    rows = table.reset_index().to_dict("records")
    if found.scores.ndim == 1:
        for row in rows:
            del row["std"]
    return [{str(key): value for key, value in row.items()} for row in rows]


def _n_prompts(found: Attribution) -> int:
    return int(found.scores.sizes.get("prompt", 1))


def _closure(found: Attribution) -> float | None:
    errors = found.closure_error.values
    known = errors[errors >= 0]  # NaN where the file does not hold the model's logit
    return float(known.max()) if known.size else None


def _print_json(found: Attribution, args: argparse.Namespace, said: str) -> None:
    spread = {"logit_std": float(found.logit.std())} if found.scores.ndim > 1 else {}
    print_json(
        {
            "path": str(args.file),
            "logit_of": said,
            "unit": found.unit,
            "position": args.position,
            "n_prompts": _n_prompts(found),
            "logit": float(found.logit.mean()),
            **spread,
            "logit_softcap": found.softcap or None,
            "unembed_bias": float(found.unembed_bias.mean()),
            "closure_error": _closure(found),
            "components": _rows(found, args),
            "result": args.store,
            "picture": args.output,
        }
    )


def _print_tables(found: Attribution, args: argparse.Namespace, said: str) -> None:
    n, is_mean = _n_prompts(found), found.scores.ndim > 1
    cap = f", before the soft cap at {found.softcap:g}" if found.softcap else ""
    spread = f" (std {float(found.logit.std()):.3f})" if is_mean else ""
    mean = "mean " if is_mean else ""
    print(f"{mean}logit of {said}: {float(found.logit.mean()):+.3f}{spread}{cap}")
    closure = _closure(found)
    worst = "not known: the file holds the logits of the last position" if closure is None else ""
    print(f"{counted(n, 'prompt')} · closure error {worst or f'{closure:.1e}'}\n")
    rows = [(found.unit, f"{mean}logit", *(["std"] if is_mean else []))]
    for row in _rows(found, args):
        numbers = [f"{row['attribution']:+.3f}", *([f"{row['std']:.3f}"] if is_mean else [])]
        rows.append((row["component"], *numbers))
    print_table(rows)
    bias = float(found.unembed_bias.mean())
    print(f"\nand {bias:+.3f} from the bias of the unembedding")
    if args.output:
        print(f"drawn to {args.output}")
    if args.store:
        print(f"stored as {args.store!r} and '{args.store}.closure_error'")
