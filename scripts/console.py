"""Terminal of scripts and experiments: flags, progress, tables, a sentence for bad input."""

import contextlib
import difflib
import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rd_elbo import aliases, disk, output
from rd_elbo.errors import BadInput
from rd_elbo.sweep import overrides

BAD_INPUT = 2
_QUIET_SECONDS = 20.0
# A part of a field's name, such as .beta or ['beta'].
_PART = r"""\.(\w+)|\[(?:'([^']+)'|"([^"]+)")\]"""
# Errors of absl, ml_collections and the files that they read, for values that do not fit.
_UNFIT = (
    *(TypeError, ValueError, LookupError, AttributeError),
    *(OSError, SyntaxError, flags.Error),
)


def guarded(main: Callable[..., None]) -> Callable[..., None]:
    """Runs `main`; bad input becomes its one sentence on standard error and exit code 2."""

    def run(*args: Any) -> None:
        _prepare()
        try:
            main(*args)
        except BadInput as error:
            # A value may be many lines.
            print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run


def _prepare() -> None:
    """Makes what is printed harmless, and paths that begin with "~" those of a home folder."""
    output.tolerate()
    sys.argv[1:] = map(output.expanded, sys.argv[1:])


def parse(argv: list[str]) -> list[str]:
    """Parses as absl does, with one sentence instead of a trace for flags that are wrong."""
    _prepare()
    argv = [argv[0], *map(output.expanded, argv[1:])]
    try:
        _check_once(argv[1:])
        if "config" in flags.FLAGS:
            given, argv = argv[1:], [argv[0], *_check_config(argv[1:])]
            # ml_collections finds the fields that flags set in the process's own arguments.
            new = dict(zip(given, argv[1:], strict=True))
            sys.argv[1:] = [new.get(argument, argument) for argument in sys.argv[1:]]
        rest: list[str] = flags.FLAGS(argv)
        if len(rest) > 1:
            raise BadInput(f"{rest[1]!r}: expected flags alone, got a word. Write --flag=value.")
        return rest
    except flags.UnrecognizedFlagError as error:
        reason = f"--{error.flagname}: expected one of {', '.join(_own_flags())}."
    except BadInput as error:
        reason = str(error)
    except _UNFIT as error:
        reason = gist(error)
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _check_once(arguments: Sequence[str]) -> None:
    """Raises for a flag that is given twice, of which absl would take the last."""
    # A negative number is the value of a flag.
    given = (argument for argument in arguments if re.match(r"--?[a-z_]", argument))
    names = [argument.partition("=")[0].lstrip("-") for argument in given]
    for name in names:
        # Those of the configuration have their values in the message.
        if names.count(name) > 1 and name.partition(".")[0] != "config":
            raise BadInput(f"--{name}: expected each flag once, got it {names.count(name)} times.")


def _own_flags() -> list[str]:
    """The flags of this script or experiment, without those of libraries and config fields."""
    by_module = flags.FLAGS.flags_by_module_dict()
    own = [key for key in by_module if key == sys.argv[0] or key.startswith("experiments.")]
    names = (flag.name for key in own for flag in by_module[key])
    return [f"--{name}" for name in names if "." not in name]


def missing(flag: str, example: str) -> str:
    """The sentence on a flag that a script cannot do without."""
    return f"--{flag}: expected a value, got none. Give one, such as {example}."


def required_workdir(given: str | None, example: str = "mine") -> pathlib.Path:
    """The run directory that a script cannot do without."""
    if not given:
        raise BadInput(missing("workdir", f"--workdir=runs/{example}"))
    return pathlib.Path(given)


def _check_config(arguments: Sequence[str]) -> list[str]:
    """The arguments, fields under their present names.

    Says what is wrong with a configuration's file, or with the names of fields set by flags, where
    absl would say little.
    """
    files, fields, present = [], [], list(arguments)
    pairs = zip(arguments, [*arguments, ""][1:], strict=True)
    for i, (argument, following) in enumerate(pairs):
        name, equals, value = argument.partition("=")
        if not equals and not following.startswith("--"):
            value = following
        if re.fullmatch("--?config", name):
            files.append(value)
        # Indices are left to ml_collections.
        elif match := re.fullmatch(rf"--?(?:no)?config((?:{_PART})+)", name):
            parts = re.findall(_PART, match[1])
            fields.append((i, ".".join(map("".join, parts)), value))
    if not files:
        if fields:
            raise BadInput(missing("config", "--config=configs/quickstart.py"))
        return present
    if len(files) > 1:
        first, second = files[:2]
        raise BadInput(
            f"--config={second!r}: expected one configuration, got {first!r} too. Give one of them."
        )
    overrides.check((field, value) for _, field, value in fields)
    config = load_config(files[0])
    for i, field, value in fields:
        now = aliases.current_field(field)
        if now != field and not _has(config, field):
            if any(other == now for _, other, _ in fields):
                raise BadInput(
                    f"{field}={value}: expected one name, got {now} too. Give {now} alone."
                )
            warn(f"--config.{field} is deprecated; give --config.{now}")
            present[i] = present[i].replace(f"config.{field}", f"config.{now}", 1)
            field = now
        _check_field(config, field, value)
    return present


def _has(config: ConfigDict, field: str) -> bool:
    """Whether a configuration has a field such as "grid.beta"."""
    above, _, name = field.rpartition(".")
    for part in filter(None, above.split(".")):
        config = config.get(part) if isinstance(config, ConfigDict) else None
    return isinstance(config, ConfigDict) and name in config


def load_config(file: str) -> ConfigDict:
    """A file's configuration; an error of its code becomes a sentence with the line."""
    path = file.partition(":")[0]
    try:
        with open(path):
            pass
    except OSError as error:
        raise BadInput(
            f"--config={file!r}: expected a readable file, got none ({error.strerror}). Give a "
            "path relative to the current folder."
        ) from error
    try:
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", file, flag_values=values, sys_argv=[])
        config = values["config"].value
        if isinstance(config, ConfigDict):
            return config
        getattr(config, "to_dict", None)  # ml_collections raises here what it has put off
    except Exception as error:
        raise BadInput(
            f"--config={file!r}: expected a file that loads, got an error ({_cause(error, path)})."
        ) from error
    raise BadInput(
        f"--config={file!r}: expected a ConfigDict from get_config, got {type(config).__name__!r}."
    )


def _cause(error: BaseException, path: str) -> str:
    """What the code of a configuration's file raised, and in which line."""
    # ml_collections and absl wrap it, some of it with its trace as text.
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, SyntaxError):
        lines, text = [error.lineno], error.msg
    else:
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_code.co_filename == path]
        text = " ".join(str(error).split())
    # An unknown form is a ValueError in the file's own words.
    if isinstance(error, ValueError):
        return text.rstrip(".")
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {text}"


def _check_field(config: ConfigDict, field: str, value: str) -> None:
    """Raises unless the configuration has the field, and its value may be one of that field."""
    above, names = "config", field.split(".")
    for name in names:
        if not isinstance(config, ConfigDict):
            raise BadInput(
                f"--config.{field}: expected a field that there is, got {name!r}. {above} has none."
            )
        if name not in config:
            alike = difflib.get_close_matches(name, config, 1)
            known = ", ".join(config) or "none"
            advice = f"Did you mean {alike[0]!r}?" if alike else f"There are {known}."
            raise BadInput(f"--config.{field}: expected a field of {above}, got {name!r}. {advice}")
        kind, config, above = config.get_type(name), config[name], f"{above}.{name}"
    # ml_collections takes the keys of a dictionary for the values of an axis.
    if kind is tuple and value.lstrip().startswith("{"):
        raise BadInput(
            f"--config.{field}={value}: expected a value, or a tuple of values in brackets."
        )


# What Python says of words that are no numbers, and what is meant.
_EXPECTED = {
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
}


def gist(error: Exception) -> str:
    """What an error of ml_collections or absl says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    for said, meant in _EXPECTED.items():
        if said in text:
            flag = text[: text.index(said)].removeprefix("flag ").rstrip(": ('")
            return f"{flag}: expected {meant}."
    return text


@contextlib.contextmanager
def writing(workdir: pathlib.Path) -> Iterator[None]:
    """One sentence where a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and str(error.filename) != str(workdir)
        reason = disk.gist(error) + (f", {str(error.filename)!r}" if elsewhere else "")
        raise BadInput(
            f"workdir={str(workdir)!r}: expected a folder to write to, got none ({reason})."
        ) from error


def duration(seconds: float) -> str:
    """Seconds in words of two units at most."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def warn(sentence: str) -> None:
    """Says what went wrong and how it was got round."""
    print(f"warning: {sentence}", file=sys.stderr)


def make_console(quiet: bool = False, width: int | None = None) -> Console:
    """A terminal that prints texts as they are, such as paths with brackets and colons."""
    # Some environments say that a terminal has no columns.
    if width is None and os.environ.get("COLUMNS") == "0":
        width = 80
    return Console(quiet=quiet, width=width, markup=False, emoji=False, highlight=False)


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[float, str], None]]:
    """Shows progress: a live bar in a terminal, a line now and then elsewhere.

    Yields:
      A function of the part done, 0 to 1, and of the activity.
    """
    if not console.is_terminal:
        began = last = time.monotonic()

        def show(done: float, doing: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _QUIET_SECONDS or done >= 1:
                last, spent = now, now - began
                left = spent * (1 - done) / max(done, 1e-9)
                line = f"{100 * done:3.0f} %  {doing}; {spent:.0f} s gone, {left:.0f} s left"
                console.print(line, soft_wrap=True)

        yield show
        return
    texts = (TextColumn("{task.percentage:3.0f} %"), TextColumn("{task.description}"))
    columns = (BarColumn(bar_width=12), *texts, TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as display:
        task = display.add_task("compiling", total=1.0)
        yield lambda done, doing: display.update(task, completed=done, description=doing)


def print_table(console: Console, table: Table) -> None:
    """Prints a table at its own width: a narrow terminal would take columns away."""
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    make_console(console.quiet, max(width, console.width)).print(table)


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
