"""Command lines of the experiments and of scripts other than the sweep."""

from bad_inputs.row import CONFIG, WHOLE, Row, every, experiment, file, script
from bad_inputs.tables import finished
from bad_inputs.workdirs import begun

TOY, GAUSSIAN = experiment("toy"), experiment("gaussian")
EXPERIMENTS = [
    Row(
        ("-m", "experiments.toy"),
        "--workdir: expected a value, got none. Give one, such as --workdir=runs/toy",
    ),
    Row(
        ("-m", "experiments.toy", "--workdir="),
        "--workdir: expected a value, got none. Give one, such as --workdir=runs/toy",
    ),
    Row((*TOY, "--wide"), "--wide: expected one of --config, --workdir, --overwrite"),
    Row((*GAUSSIAN, "stray"), "'stray': expected flags alone, got a word. Write --flag=value."),
    Row(
        (*TOY, "--config=@/absent.py"),
        "--config='@/absent.py': expected a readable file, got none (No",
    ),
    Row((*TOY, "--config=configs/toy.py:slow"), "form='slow': expected 'full' or 'quick'"),
    Row((*TOY, f"--config={CONFIG}"), "expected a configuration of 'toy' with the field 'code"),
    Row((*TOY, "--config.name=gaussian"), "name='gaussian': expected 'toy', the experiment's"),
    Row((*TOY, "--redraw"), "'@/run/config.json': expected a readable file, got none (No such"),
    Row(
        (*TOY, "--redraw"),
        "expected a run of 'toy', got one of None.",
        file("run/config.json", "[]"),
    ),
    Row((*GAUSSIAN, "--redraw"), "expected a run of 'gaussian', got one of 'toy'.", begun("toy")),
    Row(
        (*TOY, "--redraw", "--config.codes=3"), "--config: expected no value with --", begun("toy")
    ),
    Row(
        (*GAUSSIAN, "--redraw"),
        "table '@/run/points.csv': expected a readable file",
        begun("gaussian"),
    ),
    Row(
        (*GAUSSIAN, "--redraw"),
        "tables as they were written, got damaged ones (KeyError('study')). Run",
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
        ("stepz=3", "a field of config, got 'stepz'. Did you mean 'steps'?"),
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
    Row(
        ("scripts/gallery.py",),
        "--workdir: expected a value, got none. Give one, such as --workdir=runs/mine",
    ),
    Row(script("gallery", "--draws=3"), "--draws: expected one of --workdir, --examples"),
    Row(("scripts/full_size.py",), "the following arguments are required: --workdir"),
    Row((*FULL_SIZE, "--families=---,-x-"), "--families='-x-': expected one of '---', '--+'"),
    Row((*FULL_SIZE, "--families="), "--families='': expected one of '---', '--+'"),
    Row((*FULL_SIZE, "--steps=7"), "--steps=7: expected at least 8; the first 4 are not timed"),
    Row((*FULL_SIZE, "--steps=many"), "argument --steps: invalid int value: 'many'"),
    Row(
        FULL_SIZE,
        "workdir='@/run': expected a folder to write to, got none (File ex",
        file("run", "x"),
    ),
    Row((BENCHMARK, "speed"), "argument what: invalid choice: 'speed' (choose from"),
    Row((BENCHMARK,), "the following arguments are required: what"),
    Row((BENCHMARK, "flow", "--only=vae"), "only='vae': expected a case of flow, one of maf."),
    Row((BENCHMARK, "members", "--members=0"), "--members=0: expected a whole number of"),
    Row((BENCHMARK, "toy", "--seconds=0"), "--seconds=0.0: expected above 0 and at most"),
    Row((BENCHMARK, "toy", "--rounds=0"), "--rounds=0: expected a whole number of at least 1"),
    Row((BENCHMARK, "vmap_size"), "--config=None: expected a configuration with vmap_size"),
    Row((DIGITS, "--wheel=@/absent"), "--wheel='@/absent': expected a readable file, got none (No"),
    Row((DIGITS, "--wheel=@/x"), "got 2d711642b726b0", file("x", "x")),
]
