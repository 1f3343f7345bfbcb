"""Run directories that a sweep or an experiment is to fill."""

from bad_inputs.row import Row, every, experiment, file, sweep
from configs import gaussian, quickstart, toy
from rd_elbo.sweep.folder import open_run

CONFIGS = {
    name: module.get_config("quick").to_dict()
    for name, module in (("sweep", quickstart), ("toy", toy), ("gaussian", gaussian))
}


def begun(name="sweep"):
    """A run directory in which nothing is trained yet."""
    return lambda folder: open_run(folder / "run", CONFIGS[name])


def holding(name, content):
    """A run directory with a file of one's own."""
    return every(begun(), file(f"run/{name}", content))


def read_only(folder):
    (folder / "run").mkdir()
    (folder / "run").chmod(0o555)


AS_ROOT = "root may write to what is read-only"
HELD = "workdir='@/run': expected a readable config.json, got none"
OTHER = "workdir='@/run': expected the same run, got a different one"
FLOAT64 = sweep("--config.population.dtype=float64")
OLD = "workdir='@/run': expected a new folder or a run of this release, got a run of 0.1.0"
WORKDIRS = [
    Row(sweep(), "workdir='@/run': expected a folder, new or of the same", file("run", "x")),
    Row(sweep("--overwrite"), "workdir='@/run': expected a folder, new or of", file("run", "x")),
    Row(
        sweep("--workdir=@/file/run"),
        "workdir='@/file/run': expected a folder to write to, got none (Not a directory)",
        file("file", "x"),
    ),
    Row(sweep(f"--workdir=@/{'x' * 300}"), "a folder to write to, got none (File name too long)"),
    Row(sweep(), "a folder to write to, got none (Permission denied)", read_only),
    Row(sweep(), "expected a new folder or a run, got other files.", file("run/thesis.tex", "x")),
    Row(sweep(), "expected a folder 'chunks', got a file", holding("chunks", "x")),
    Row(sweep("--overwrite"), f"{OLD} (plan.json)", holding("plan.json", "{}")),
    Row(sweep(), f"{HELD} (Expecting property name", holding("config.json", "{")),
    Row(sweep(), f"{HELD} ('utf-8' codec can't decode", holding("config.json", b"\xff\xfe")),
    Row(sweep(), f"{HELD} (it is no configuration)", holding("config.json", "[]")),
    Row(sweep("--config.data.examples=99"), f"{OTHER} (data.examples was 512 and is", begun()),
    Row(FLOAT64, f"{OTHER} (population.dtype was 'float32' and is 'float64')", begun()),
    Row(sweep("--config.name=mine"), f"{OTHER} (name was 'quickstart' and is 'mine')", begun()),
    Row(sweep(), f"{OTHER} (data was None and is", begun("toy")),
    Row(experiment("toy"), f"{OTHER} (adam_b2 was None and is 0.95)", begun()),
]
