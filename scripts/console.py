"""What scripts and experiments share in a terminal: flags, a progress bar, tables, and one sentence for bad input."""

import ast
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rd_elbo.errors import BadInput
from rd_elbo.objectives import SETTINGS
from rd_elbo.watch import Listener, Status

BAD_INPUT = 2
# 128 and the number of the signal, as shells count.
STOPPED = 128 + signal.SIGTERM
_QUIET_SECONDS = 20.0


def guarded(main: Callable[..., None]) -> Callable[..., None]:
    """Runs `main`; bad input becomes its one sentence on standard error and exit code 2."""

    def run(*args: Any) -> None:
        try:
            main(*args)
        except BadInput as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run


def parse(argv: list[str]) -> list[str]:
    """Parses as absl does, with one sentence instead of a trace for flags that do not exist or do not fit."""
    try:
        if any(a.startswith("--config.") for a in argv) and not any(a.split("=")[0] == "--config" for a in argv):
            raise BadInput("--config is missing; for example --config=configs/quickstart.py")
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        reason = f"config has no field {gist(error)}"
    except (TypeError, ValueError, OSError, SyntaxError, ImportError, flags.Error) as error:
        reason = gist(error)
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def gist(error: Exception) -> str:
    """What an error of ml_collections or absl says, in one line and without the trace it may quote."""
    # str(KeyError) is the repr of its message, and ml_collections wraps one into another.
    text = str(error)
    while text[:1] in "\"'" and text[:1] == text[-1:] and len(text) > 2 and "\\n" in text:
        text = ast.literal_eval(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    quotes_a_trace = any("Traceback" in line or "Attempted" in line for line in lines)
    return lines[-1] if quotes_a_trace else " ".join(lines)


def describe(status: Status, brief: bool = False) -> str:
    """One line on where a sweep is; `brief` fits beside a bar into 80 columns."""
    line = f"{status.members_done}/{status.members} members, part {status.part + 1}/{status.parts}: "
    if status.doing == "training":
        line += f"step {status.step}/{status.steps}"
        line += "" if brief else f" of {status.at_work}, R {status.rate:.1f}, D {status.distortion:.1f}"
    else:
        line += status.doing
    return line + (f", {status.diverged} diverged" if status.diverged else "")


def warn(sentence: str) -> None:
    """Says what went wrong and how it was got round."""
    print(f"warning: {sentence}", file=sys.stderr)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Whether a termination signal has come, the notice that schedulers give; a second one ends the process as ever."""
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Listener]:
    """A listener for a sweep: a live bar in a terminal, a line now and then elsewhere."""
    brief = console.is_terminal and console.width < 100
    with ticker(console) as tell:
        yield lambda status: tell(status.done, describe(status, brief))


@contextlib.contextmanager
def ticker(console: Console) -> Iterator[Callable[[float, str], None]]:
    """Shows what part is done and what is being done: a live bar in a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        began = last = time.monotonic()

        def tell(done: float, doing: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _QUIET_SECONDS or done >= 1:
                last, spent = now, now - began
                left = spent * (1 - done) / max(done, 1e-9)
                line = f"{100 * done:3.0f} %  {doing}; {spent:.0f} s gone, {left:.0f} s left"
                console.print(line, soft_wrap=True, highlight=False)

        yield tell
        return
    columns = (BarColumn(bar_width=12), TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}"))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as display:
        task = display.add_task("compiling", total=1.0)
        yield lambda done, doing: display.update(task, completed=done, description=doing)


def points_table(points: Sequence[Mapping[str, Any]], split: str) -> Table:
    """The points of one split in nats, group by group, narrow enough for 80 columns."""
    rows = sorted((p for p in points if p["split"] == split), key=lambda p: (*_group(p), _control(p), p["seed"]))
    table = Table(
        title=f"{split} split: nats, ± standard error over examples",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        pad_edge=False,
    )
    by_beta = all(point["objective"] == "beta" and not point["annealing"] for point in rows)
    for name in ("family", "decoder", "β" if by_beta else "aim"):
        table.add_column(name, no_wrap=True)
    for name in ("seed", "R", "±", "D", "±", "R + D", "active"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for point, following in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            point["family"],
            f"{point['decoder']} {point['decoder_width']}x{point['decoder_depth']}",
            f"{_control(point):.3g}" if by_beta else aim(point),
            str(point["seed"]),
            f"{point['rate']:.2f}",
            f"{point['rate_se']:.2f}",
            f"{point['distortion']:.2f}",
            f"{point['distortion_se']:.2f}",
            f"{-point['elbo']:.2f}",
            str(point["active_units"]),
            point["status"],
            end_section=following is not None and _group(following) != _group(point),
        )
    return table


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def aim(point: Mapping[str, Any]) -> str:
    """What a model was trained for: a beta, or a target; an arrow where that was annealed."""
    name, sign = {"beta": ("β", "="), "target_rate": ("R", "="), "target_distortion": ("D", "="), "free_bits": ("R", "≥")}.get(
        point["objective"], (point["objective"], "=")
    )
    return f"{name} {'→' if point['annealing'] else sign} {_control(point):.3g}"


def _control(point: Mapping[str, Any]) -> float:
    return point[SETTINGS[point["objective"]][0]]


def _group(point: Mapping[str, Any]) -> tuple[Any, ...]:
    own = ("decoder", "decoder_width", "decoder_depth", "encoder", "marginal", "objective")
    return tuple(point[field] for field in own)
