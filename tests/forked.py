"""Run scripts as `python scripts/<name>.py ...` would, as forks of one process with all imports.

A script spends seconds on its imports and refuses bad input in milliseconds. A table of a hundred
command lines would take minutes. No backend of JAX is started before a fork: a child can set up its
devices like a fresh interpreter.
"""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What takes time, ours or not.
_HEAVY = ("absl.app", "matplotlib.pyplot", "ml_collections.config_flags")
_HEAVY += ("rich.progress", "rich.table", "scipy.io")
_HEAVY += ("rd_elbo.report.selection", "rd_elbo.report.compare", "rd_elbo.report.gallery")
_HEAVY += ("rd_elbo.sweep.presets", "rd_elbo.sweep.run")
_HEAVY += ("rd_elbo.exact.alternating", "rd_elbo.exact.toy", "rd_elbo.exact.gaussian")
_HEAVY += ("rd_elbo.models.linear",)
_HEAVY += ("rd_elbo.plots", "rd_elbo.report.gallery_figures")
# A child that trains in place of refusing is ended by a signal.
_SECONDS = 60


class Forked:
    """The other end of a process that forks."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process

    def run(
        self, argv: Sequence[str], cwd: pathlib.Path = ROOT, seconds: int = _SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `python <argv>` in `cwd`; `argv` begins with a script, or with -m and a module."""
        assert self._process.stdin and self._process.stdout
        request = {"argv": list(argv), "cwd": str(cwd), "seconds": seconds}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(list(argv), answer["code"], answer["out"], answer["err"])


@contextlib.contextmanager
def forked(**environment: str) -> Iterator[Forked]:
    """A process to run scripts in, with some variables of its environment changed."""
    with subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "COLUMNS": "200", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forked(process)
        assert process.stdin
        process.stdin.close()


def _serve() -> None:
    # A script's own folder comes first on its path, not this one.
    sys.path[0] = str(ROOT)
    for name in _HEAVY:
        importlib.import_module(name)
    from jax._src import xla_bridge

    for line in sys.stdin:
        assert not xla_bridge.backends_are_initialized(), (
            "a process with threads may hang in a fork"
        )
        print(json.dumps(_fork(**json.loads(line))), flush=True)


def _fork(argv: Sequence[str], cwd: str, seconds: int) -> Mapping[str, str | int]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setpgid(0, 0)
                signal.alarm(seconds)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                code = _run(argv, cwd)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        # What a script that should have refused has started itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return {"code": os.waitstatus_to_exitcode(status), "out": said[0], "err": said[1]}


def _run(argv: Sequence[str], cwd: str) -> int:
    """Exit code of the script, whose name is its __main__."""
    os.chdir(cwd)
    module = argv[0] == "-m"
    sys.argv = list(argv[1:] if module else argv)
    sys.path.insert(0, cwd if module else str(pathlib.Path(argv[0]).resolve().parent))
    try:
        if module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
