"""The command ``pattern-lens``: parse, call one library function, report.

Rule: nothing heavy is imported before a command runs; what a command computes is in the library. Exit status 0: done;
1: some items failed; 2: wrong use; 130 and 143: ended by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Never

from pattern_lens import __version__
from pattern_lens.errors import DamagedFileError, FileNotWritableError, PatternLensError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_lens.activations.capture import CaptureReport
    from pattern_lens.demo.run import DemoResult
    from pattern_lens.prompts import PromptSet

PROGRAM: Final = "pattern-lens"
DONE, FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_CAPTURE_PACKAGES: Final = ("torch", "transformers", "transformer_lens", "psutil")
_SHOWN_FAILURES: Final = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments after the program's name; those of this process by default.

    Returns
    -------
    The exit status.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt as stop:
        _complain("; ".join(["interrupted", *getattr(stop, "__notes__", [])]))
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except (PatternLensError, OSError, ModuleNotFoundError) as err:
        if args.traceback or os.environ.get("PATTERN_LENS_TRACEBACK"):
            raise
        _explain(err)
        return WRONG_USE


# --- arguments -----------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; a command's parser says in `run` what it calls."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Record what a transformer computes, in one HDF5 file, and look after such files.",
        epilog=f"Begin with '{PROGRAM} demo'; '{PROGRAM} COMMAND --help' has examples of each command.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_capture, _add_demo, _add_info, _add_verify, _add_delete, _add_compact):
        add(commands)
    return parser


def _add(
    commands: Any, name: str, run: Any, summary: str, epilog: str, *, quiet: bool = True
) -> argparse.ArgumentParser:
    """A command with the options that all have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    if quiet:
        parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="show where an error came from (also: PATTERN_LENS_TRACEBACK=1)",
    )
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that capture wrote")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _listed(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise argparse.ArgumentTypeError("expected one name, or several between commas")
    return items


def _add_capture(commands: Any) -> None:
    parser = _add(
        commands,
        "capture",
        _capture,
        "run prompts through a model and store what its hooks compute",
        """examples:
  pattern-lens capture -m gpt2 -p pile_1k.jsonl                      # ./gpt2.h5
  pattern-lens capture -m gpt2,pythia-70m -p prompts.txt -s files    # one file a model, in files/
  pattern-lens capture -m ./my-model -p prompts.jsonl -o mine.h5 --names pattern,resid_post -n 100

Stop it when you like: running the same command again stores what is missing. Prompts that were left out because
of --on-error skip are listed and count as done; prompts that failed make the exit status 1.""",
    )
    _add_what(parser)
    _add_prompt_options(parser)
    _add_model_options(parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", type=_listed, required=True, help="hub names or folders, between commas")
    add("-p", "--prompts", required=True, help="a .jsonl, .jsonl.gz or .txt file")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("-o", "--output", type=Path, metavar="FILE.h5", help="the file to write to")
    place.add_argument(
        "-s",
        "--save-path",
        type=Path,
        metavar="FOLDER",
        help="write MODEL.h5 in this folder, which is created (default: the current folder)",
    )
    add(
        "--names",
        type=_listed,
        default=["pattern"],
        help="what to store: short names, hook names or globs, between commas (default: pattern)",
    )
    add("-f", "--force", action="store_true", help="compute again what is stored already")


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--n-samples", type=_count, help="use so many prompts (default: all)")
    add("--min-chars", type=int, help="leave out shorter prompts")
    add("--max-chars", type=_count, help="split longer prompts")
    add("--shuffle", action="store_true", help="take the prompts in a random order")
    add("--seed", type=int, default=0, help="of --shuffle (default: 0)")
    add(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="a prompt that cannot be used: stop before anything is computed, or leave it out",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-b", "--batch-size", type=_count, default=32, help="prompts at a time (default: 32)")
    add("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one)")
    add(
        "--dtype",
        choices=("float16", "float32", "bfloat16", "float64"),
        help="store the values as this (default: what the model computes)",
    )
    add(
        "--weights",
        choices=("raw", "compatibility"),
        help="as published, or as TransformerLens processes them (default: raw)",
    )
    bos = parser.add_mutually_exclusive_group()
    bos.add_argument("--prepend-bos", action="store_true", default=None, help="put a BOS first")
    bos.add_argument("--no-bos", action="store_false", dest="prepend_bos", help="put none first")


def _add_demo(commands: Any) -> None:
    parser = _add(
        commands,
        "demo",
        _demo,
        "capture the bundled model, score its heads, and say what to try next",
        """examples:
  pattern-lens demo                # writes ./demo.h5; needs no network
  pattern-lens demo -o other.h5""",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.h5", default=Path("demo.h5"))


def _add_info(commands: Any) -> None:
    parser = _add(
        commands,
        "info",
        _info,
        "say what a file holds",
        """examples:
  pattern-lens info gpt2.h5
  pattern-lens info gpt2.h5 --json | jq .prompts.n_prompts""",
        quiet=False,
    )
    _add_file(parser)


def _add_verify(commands: Any) -> None:
    parser = _add(
        commands,
        "verify",
        _verify,
        "read everything in a file and compare it with its checksums",
        """examples:
  pattern-lens verify gpt2.h5 && echo whole
  pattern-lens verify gpt2.h5 --json --quiet

The exit status is 1 if anything is damaged. Damaged prompts are named by their hashes: capture computes their
values again.""",
    )
    _add_file(parser)


def _add_delete(commands: Any) -> None:
    parser = _add(
        commands,
        "delete",
        _delete,
        "take prompts out of a file",
        """examples:
  pattern-lens delete gpt2.h5 C7p4x9-iwFxWSKCb8kbLfQ
  pattern-lens delete gpt2.h5 --yes -- -iwFxWSKCb8kbLfQC7p4x9 C7p4x9-iwFxWSKCb8kbLfQ

A hash may begin with '-': write '--' before the hashes, and every option before that. The space comes back with
'pattern-lens compact'.""",
        quiet=False,
    )
    _add_file(parser)
    parser.add_argument("hashes", nargs="+", metavar="HASH", help="hash of a prompt")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_compact(commands: Any) -> None:
    parser = _add(
        commands,
        "compact",
        _compact,
        "write a file anew, without what was deleted or replaced",
        """examples:
  pattern-lens compact gpt2.h5

The new file is written beside the old one, verified and renamed over it; until then the old one stays as it is.""",
    )
    _add_file(parser)


# --- commands ------------------------------------------------------------------------------------


def _capture(args: argparse.Namespace) -> int:
    from pattern_lens.prompts import read_prompts

    _check_output(args)
    options = ("min_chars", "max_chars", "shuffle", "seed", "n_samples", "on_error")
    prompts = read_prompts(args.prompts, **{name: getattr(args, name) for name in options})
    reports: list[CaptureReport] = []
    with _sigterm_as_interrupt(), _hushed_libraries(downloads=not args.quiet):
        _check_device(args)
        for model in args.model:
            try:
                reports.append(_capture_one(args, model, prompts))
            except (PatternLensError, OSError) as err:
                if len(args.model) == 1:
                    raise
                _explain(err)
    if args.json:
        _print_json([asdict(report) for report in reports])
    elif prompts.errors or prompts.n_duplicates + prompts.n_too_short + prompts.n_short_remainders:
        print(prompts.summary())
    for report in reports:
        _report_capture(report, in_words=not args.json)
    whole = len(reports) == len(args.model) and not any(report.failures for report in reports)
    return DONE if whole else FAILED


def _check_output(args: argparse.Namespace) -> None:
    if args.output and len(args.model) > 1:
        args.parser.error("-o names one file, and -m several models: use -s FOLDER")
    if args.output and not args.output.expanduser().resolve().parent.is_dir():
        raise FileNotWritableError(
            f"cannot write {args.output}: there is no folder {args.output.parent}; create it first"
        )


def _check_device(args: argparse.Namespace) -> None:
    if args.device is None:
        return
    import torch

    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as err:
        args.parser.error(f"argument --device: {args.device!r}: {str(err).splitlines()[0]}")


def _capture_one(args: argparse.Namespace, name: str, prompts: PromptSet) -> CaptureReport:
    from pattern_lens.activations.capture import capture
    from pattern_lens.models import load_model

    options = {name: getattr(args, name) for name in ("device", "weights", "prepend_bos")}
    target = args.output
    try:
        model = load_model(name, **options)
        if target is None:
            folder = (args.save_path or Path()).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{model.file_stem}.h5"
        return capture(
            model,
            prompts,
            target,
            names=args.names,
            batch_size=args.batch_size,
            dtype=args.dtype,
            force=args.force,
            progress=not args.quiet,
            on_error=args.on_error,
        )
    except KeyboardInterrupt as stop:
        stop.add_note(_what_is_stored(target, prompts))
        raise


def _what_is_stored(target: Path | None, prompts: PromptSet) -> str:
    if target is None or not target.exists():
        return "nothing is stored yet"
    from pattern_lens.store.reader import StoreReader

    try:
        reader = StoreReader(target)
        held = set(reader.prompts.hashes(reader.prompts.positions))
        reader.close()
    except PatternLensError as err:
        return f"the file is to be looked at: {err}"
    n_stored = sum(prompt.hash in held for prompt in prompts)
    return (
        f"{n_stored:,} of {len(prompts):,} prompts are stored in {target}; "
        "run the same command again to go on"
    )


def _report_capture(report: CaptureReport, *, in_words: bool) -> None:
    if in_words:
        print(report.summary())
    problems = [f"{prompt}: {why}" for prompt, why in report.failures.items()]
    problems += [f"left out: {why}" for why in report.skipped]
    for problem in problems[:_SHOWN_FAILURES]:
        print(f"  {problem}", file=sys.stderr)
    if len(problems) > _SHOWN_FAILURES:
        print(f"  and {len(problems) - _SHOWN_FAILURES:,} more; --json has all", file=sys.stderr)


def _demo(args: argparse.Namespace) -> int:
    with _sigterm_as_interrupt(), _hushed_libraries(downloads=False):
        from pattern_lens.demo.run import run_demo

        result = run_demo(args.output, progress=not args.quiet)
    if args.json:
        _print_json(asdict(result))
    else:
        _print_demo(result)
    return DONE


def _print_demo(result: DemoResult) -> None:
    dense, stored = _size(result.dense_bytes), _size(result.stored_bytes)
    print(result.report.summary())
    print(
        f"{result.n_prompts} prompts, {result.n_tokens:,} tokens: {dense} of patterns in {stored}"
    )
    print()
    print("head    score  attends to")
    for found, what in (
        (result.previous_token, "the token before"),
        (result.induction, "what followed the same token before, in text that repeats itself"),
    ):
        print(f"{found.head:6}  {found.score:5.2f}  {what}")
    print("\ntry next, in this folder:")
    for step in result.next_steps:
        print(f"  {step}")


def _info(args: argparse.Namespace) -> int:
    from pattern_lens.store.info import describe

    found = describe(args.file)
    if args.json:
        _print_json(found)
    else:
        _print_info(found)
    return DONE


def _print_info(found: dict[str, Any]) -> None:
    model, prompts = found["model"], found["prompts"]
    weights = model.get("weights") or {}
    flags = ", ".join(f"{key}={value}" for key, value in weights.items() if key != "mode")
    versions = ", ".join(f"{name} {number}" for name, number in model.get("versions", {}).items())
    rows = [
        ("file", found["path"]),
        ("size", f"{_size(found['size_bytes'])}, format {found['format_version']}"),
        ("created", f"{found.get('created_utc')} by {found.get('created_by')}"),
        (
            "model",
            f"{model.get('name')}, {model.get('n_layers')} layers of {model.get('n_heads')} heads, {model.get('dtype')}",
        ),
        ("weights", f"{weights.get('mode')}{f' ({flags})' if flags else ''}"),
        ("BOS", "prepended" if model.get("prepend_bos") else "not prepended"),
        *([("versions", versions)] if versions else []),
        (
            "prompts",
            f"{prompts['n_prompts']:,}, {prompts['n_truncated']:,} of them cut to the model's context",
        ),
    ]
    if prompts["n_prompts"]:
        lengths = f"{prompts['shortest']:,} to {prompts['longest']:,} a prompt"
        rows.append(("tokens", f"{prompts['n_tokens']:,}, {lengths}"))
    if prompts["n_deleted"]:
        rows.append(("deleted", f"{_prompts(prompts['n_deleted'])}; 'compact' gives space back"))
    _print_table(rows)
    print()
    _print_table([_ACTIVATION_HEAD, *map(_activation_row, found["activations"].items())])


_ACTIVATION_HEAD: Final = (
    "activation",
    "prompts",
    "dims",
    "layers",
    "dtype",
    "dense",
    "stored",
    "ratio",
)


def _activation_row(item: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    name, array = item
    layers = array["layers"]
    runs = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else "".join(map(str, layers))
    full = list(range(layers[0], layers[-1] + 1)) == layers if layers else True
    return (
        name,
        f"{array['n_prompts']:,}",
        ", ".join(f"{dim} {array['sizes'].get(dim, '')}".strip() for dim in array["dims"]),
        runs if full else ",".join(map(str, layers)),
        array["dtype"],
        _size(array["dense_bytes"]),
        _size(array["stored_bytes"]),
        str(array["ratio"]),
    )


def _verify(args: argparse.Namespace) -> int:
    from pattern_lens.store.verify import verify

    try:
        report = verify(args.file, progress=not args.quiet)
    except DamagedFileError as err:
        if args.json:
            _print_json({"path": str(args.file), "ok": False, "error": _message(err)})
        _explain(err)
        return FAILED
    if args.json:
        _print_json({"ok": report.ok, **asdict(report)})
    else:
        print(report.summary())
        for damage in report.damaged:
            print(f"  {damage}")
    return DONE if report.ok else FAILED


def _delete(args: argparse.Namespace) -> int:
    from pattern_lens.store.compact import delete_prompts

    if not args.yes:
        if not sys.stdin.isatty():
            args.parser.error("nobody to ask here: say --yes (before '--') to delete")
        n = len(set(args.hashes))
        answer = input(f"delete {_prompts(n)} and all values from {args.file}? [y/N] ")
        if answer.strip().lower() not in {"y", "yes"}:
            print("nothing deleted")
            return FAILED
    n_deleted = delete_prompts(args.file, args.hashes)
    if args.json:
        _print_json({"path": str(args.file), "n_deleted": n_deleted})
    else:
        print(f"{_prompts(n_deleted)} deleted; '{PROGRAM} compact' gives their space back")
    return DONE


def _compact(args: argparse.Namespace) -> int:
    from pattern_lens.store.compact import compact

    report = compact(args.file, progress=not args.quiet)
    if args.json:
        _print_json(asdict(report))
    else:
        print(report.summary())
    return DONE


# --- output --------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _prompts(n: int) -> str:
    return f"{n:,} prompt{'' if n == 1 else 's'}"


def _size(n_bytes: float) -> str:
    """Bytes as people read them.

    Examples
    --------
    >>> _size(812), _size(9_766_988)
    ('812 B', '9.8 MB')
    """
    unit = "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"


def _complain(what: str) -> None:
    print(f"{PROGRAM}: {what}", file=sys.stderr)


def _message(err: BaseException) -> str:
    """What an error says, without the number that Python puts before an OSError's words."""
    if isinstance(err, ModuleNotFoundError) and err.name in _CAPTURE_PACKAGES:
        return f"{err.name} is not installed; run: pip install 'pattern-lens[capture]'"
    if isinstance(err, PatternLensError) and isinstance(err, OSError) and err.strerror:
        return err.strerror
    return str(err)


def _explain(err: BaseException) -> None:
    _complain(f"error: {_message(err)}")
    for note in getattr(err, "__notes__", []):
        print(f"  {note}", file=sys.stderr)


# --- surroundings --------------------------------------------------------------------------------


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C: what runs is finished, and files are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: object) -> Never:  # noqa: ARG001
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _hushed_libraries(*, downloads: bool) -> Iterator[None]:
    """Keep Hugging Face's bars and warnings off the console, but for downloads, which take long."""
    hub, logging = map(import_module, ("huggingface_hub.utils", "transformers.utils.logging"))
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if downloads and hub_bars:
        hub.enable_progress_bars()
    try:
        with warnings.catch_warnings():
            for library in ("transformers", "transformer_lens", "huggingface_hub", "torch"):
                warnings.filterwarnings("ignore", module=rf"{library}\b")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()
