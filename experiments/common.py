"""The frame of an experiment: its flags, and a run from bad input to the last line."""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from rd_elbo import aliases, disk, host
from rd_elbo.data.cache import cache_folder
from rd_elbo.errors import BadInput
from rd_elbo.sweep import provenance
from rd_elbo.sweep.folder import open_run
from scripts import console as terminal

ROOT = pathlib.Path(__file__).resolve().parents[1]

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Settings other than the experiment's own."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory to fill.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a different run in workdir.")
_REDRAW = flags.DEFINE_bool("redraw", False, "Only draw the figures again, from tables.")

# Work writes tables: from the configuration, the run directory and a callback with the part done,
# 0 to 1, and the activity.
Progress = Callable[[float, str], None]
Work = Callable[[dict[str, Any], pathlib.Path, Progress], dict[str, float]]


def main(
    name: str,
    check: Callable[[dict[str, Any]], None],
    work: Work,
    report: Callable[..., Any],
    draw: Callable[..., Any],
) -> None:
    """Run an experiment from the command line.

    Args:
      name: Name of the experiment; its configuration is configs/<name>.py.
      check: Function that raises `BadInput` if the configuration cannot be done.
      work: Function that fills the run directory with tables; returns seconds by activity.
      report: Function that prints, on a console, the numbers of a run directory beside the paper's.
      draw: Function that draws the figures of a run directory from its tables; returns their paths.
    """

    @terminal.guarded
    def go(_: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        workdir, console = terminal.required_workdir(_WORKDIR.value, name), terminal.make_console()
        if _REDRAW.value:
            if any(a.lstrip("-").startswith("config") for a in sys.argv[1:]):
                raise BadInput(
                    "--config: expected no value with --redraw, which draws what is in --workdir. "
                    "Leave it out."
                )
            held = disk.read_json(workdir / "config.json")
            held = held.get("name") if isinstance(held, dict) else None
            if held != name:
                raise BadInput(
                    f"workdir={str(workdir)!r}: expected a run of {name!r}, got one of {held!r}."
                )
        else:
            config = aliases.current(_CONFIG.value.to_dict(), terminal.warn)
            try:
                check(config)
            except KeyError as error:
                raise BadInput(
                    f"--config: expected a configuration of {name!r} with the field {error}, got "
                    "one without."
                ) from error
            if config.get("name") != name:
                raise BadInput(
                    f"name={config.get('name')!r}: expected {name!r}, the experiment's name."
                )
            execution = config["population"]
            x64 = execution["dtype"] == "float64"
            host.configure(execution["devices"], cache_folder() / "xla", x64=x64)
            open_run(workdir, config, _OVERWRITE.value)
            began = time.perf_counter()
            with terminal.progress_bar(console) as progress:
                seconds = work(config, workdir, progress)
                progress(1.0, "done")
            seconds["total"] = time.perf_counter() - began
            about = {"name": name, "origin": "exact", "sha256": None}
            command = ["python", "-m", f"experiments.{name}", *sys.argv[1:]]
            record = provenance.provenance(about, command, seconds)
            disk.write_json(workdir / "provenance.json", record)
        try:
            report(console, workdir)
            drawn = ", ".join(str(path) for path in draw(workdir) if path.suffix == ".png")
        except BadInput:
            raise
        except (LookupError, ValueError, TypeError, StopIteration) as error:
            # What was just written has no such excuse.
            if not _REDRAW.value:
                raise
            raise BadInput(
                f"workdir={str(workdir)!r}: expected tables as they were written, got damaged ones "
                f"({error!r}). Run the experiment again."
            ) from error
        console.print(f"tables in {workdir}, figures in {drawn}", soft_wrap=True)

    def parse(argv: list[str]) -> list[str]:
        given = any(a.split("=")[0] in ("--config", "-config") for a in argv)
        own = [] if given else [f"--config={ROOT / 'configs' / name}.py"]
        return terminal.parse([argv[0], *own, *argv[1:]])

    app.run(go, flags_parser=parse)
