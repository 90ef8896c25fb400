"""The `align` command. Every command is a few lines over the library."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import NoReturn

from cyclopts import App

from alignment import __version__
from alignment.errors import AlignError, ConfigError, Terminated, redact
from alignment.utils.loopback import spare_loopback

spare_loopback()

# Nobody's telemetry, before any library is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Its hints on tokens and caches are for programmers; errors still come through.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

app = App(
    name="align",
    help="Iterative RLHF in the manner of Llama 2: SFT, then RLHF-V1 … RLHF-V5.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # we say more
)

VERBS = {
    "run": ("run:run", "Carry out a program: base → SFT → RLHF-V1 … V5."),
    "resume": ("resume:resume", "Go on where a run broke off, or redo a stage."),
    "plan": ("plan:plan", "Show what would run, what is done, and what it would cost."),
    "status": ("status:status", "Show the state of every stage."),
    "stage": ("stage:stage", "Run one stage alone."),
    "ingest": ("data:ingest", "Take in a delivery of preferences."),
    "use": ("use:use", "Choose the workspace that commands work on."),
    "batches": ("data:batches", "List the batches in the store; take one back."),
    "annotate": ("annotate:annotate", "Hand pairs out to annotators; list what came back."),
    "rewards": ("rewards:rewards", "Show how far a version's reward models can be trusted."),
    "compare": ("compare:compare", "Show versions side by side."),
    "report": ("compare:report", "Write one HTML page with tables, pictures and samples."),
    "approve": ("approve:approve", "Let a version go out: the next one starts from it."),
    "reject": ("approve:reject", "Hold a version back: the next one starts from the champion."),
    "lineage": ("lineage:lineage", "Show what a version was made from, back to the data."),
    "reproduce": ("reproduce:reproduce", "Make a version again elsewhere and compare the bytes."),
    "mlflow": ("mlflow:app", "Write the history to MLflow from the ledger."),
    "chat": ("chat:chat", "Talk with a version, or with two side by side."),
    "export": ("chat:export", "Write a version as a plain Hugging Face directory."),
    "serve": ("serve:serve", "Serve a program: schedules, events, pages."),
    "down": ("serve:down", "Stop what `align serve` started."),
    "vllm": ("vllm:app", "Install the environment of its own that the engine vllm needs."),
    "doctor": ("doctor:doctor", "Find what crashes left behind, and mend it."),
    "ui": ("ui:ui", "Start the MLflow and Prefect pages."),
    "bench": ("bench:bench", "Measure speed and memory."),
}
# By name, so that `align status` does not wait for what only `align run` needs.
for place, (verb, (target, summary)) in enumerate(VERBS.items()):
    # A verb's own page shows its whole docstring, with examples; the overview shows one line.
    shown = None if verb in sys.argv[1:2] else summary
    app.command(f"alignment.cli.{target}", name=verb, help=shown, sort_key=place)


def main() -> NoReturn:
    """Entry point of `align`: runs a command, turns errors into messages and exit codes."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.excepthook = _without_passwords
    words = [_at_home(word) for word in sys.argv[1:]]
    try:
        _refuse_option_first(words)
        code = app(words)
    except AlignError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        resumable = words[:1] in (["run"], ["resume"], ["stage"])
        print("stopped" + "; `align resume` goes on from here" * resumable, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        _tell_if_full(error)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _refuse_option_first(words: Sequence[str]) -> None:
    """`align --workspace X status` would be told that `--workspace` is an unknown command.

    Raises:
        ConfigError: an option of a verb stands before it.
    """
    if (
        not words
        or not words[0].startswith("-")
        or {*words[:1]} & {*app.help_flags, *app.version_flags}
    ):
        return
    at = next((place for place, word in enumerate(words) if word in VERBS), None)
    meant = "VERB ..." if at is None else shlex.join([*words[at:], *words[:at]])
    raise ConfigError(
        f"{words[0]} stands before the verb; options follow it", remedy=f"align {meant}"
    )


def _at_home(word: str) -> str:
    """`--into=~/x` with the home directory: shells replace `~` at the beginning of a word only."""
    option, _, value = word.partition("=")
    known = option.startswith("--") and value.startswith("~")
    return f"{option}={os.path.expanduser(value)}" if known else word  # noqa: PTH111


def _without_passwords(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of ours is shown with its traceback, but never with a password in it."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _tell_if_full(error: OSError) -> None:
    """Outside the stages, which say how much they need, the disk can be full as well."""
    from alignment.execution.failures import FULL
    from alignment.pipeline.disk_space import DiskFullError

    if error.errno in FULL:
        where = None if error.filename is None else str(error.filename)
        remedy = "free some space, then do the same again: nothing half-written stays"
        disk_full = DiskFullError(
            f"the disk is full ({error.strerror})", where=where, remedy=remedy
        )
        _tell(disk_full)
        sys.exit(disk_full.exit_code)


def _tell(error: AlignError) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.where:
        console.print(Text.assemble(("  where:  ", "dim"), error.where))
    if error.remedy:
        console.print(Text.assemble(("  remedy: ", "dim"), error.remedy))


if __name__ == "__main__":
    main()
