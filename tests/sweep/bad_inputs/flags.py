"""Flags of the sweep, and the files that --config names."""

from bad_inputs.row import CONFIG, WHOLE, Row, file, sweep

TOGETHER = ": expected a value, got none. Give --coordinator, --processes and --process"
NO_CONFIG = "--config: expected a value, got none. Give one, such as --config=configs/quickstart.py"
NO_WORKDIR = "--workdir: expected a value, got none. Give one, such as --config=configs/quick"
FAULT = ": expected a file that loads, got an error "
ONE_PROCESS = "overwrite=True: expected one process"


def mesh(processes, process, address="127.0.0.1:9"):
    return f"--coordinator={address}", f"--processes={processes}", f"--process={process}"


FLAGS = [
    Row(sweep("--process=1"), f"--coordinator{TOGETHER}"),
    Row(sweep("--coordinator=127.0.0.1:9"), f"--processes{TOGETHER}"),
    Row(sweep("--coordinator=127.0.0.1:9", "--processes=2"), f"--process{TOGETHER}"),
    Row(sweep(*mesh(2, 2)), "process=2: expected less than processes=2"),
    Row(sweep(*mesh(2, 0, "somewhere")), "coordinator='somewhere': expected an address and a port"),
    Row(sweep(*mesh(0, 0)), f"processes=0{WHOLE}"),
    Row(sweep("--distributed"), "coordinator=None: expected the other processes, got"),
    Row(sweep("--shard=4/4"), "shard='4/4': expected an index below 4, got 4"),
    Row(sweep("--shard=0/0"), "shard='0/0': expected an index below 0"),
    Row(sweep("--shard=first"), "shard='first': expected i/n, auto or auto/n"),
    Row(sweep("--shard=auto"), "shard='auto': expected a Slurm array or a step"),
    Row(sweep("--shard=auto/4"), "shard='auto/4': expected JOB_COMPLETION_INDEX"),
    Row(sweep("--shard=0/2", "--overwrite"), ONE_PROCESS),
    Row(sweep("--collect", "--overwrite"), ONE_PROCESS),
    Row(sweep("--shard=0/2", *mesh(2, 0)), "shard='0/2': expected no shard with --distributed"),
    Row(sweep("--collect"), "workdir='@/run': expected a run to collect"),
    Row(sweep("--budget=long"), "budget='long': expected a duration such as 90s"),
    Row(sweep("--budget=0m"), "budget='0m': expected a duration such as 90s"),
    Row(sweep("--retrain=all"), "value should be one of <stale>"),
    Row(("scripts/sweep.py",), NO_CONFIG),
    Row(("scripts/sweep.py", "--workdir=@/run"), NO_CONFIG),
    Row(("scripts/sweep.py", "--workdir=@/run", "--config.grid.beta=1.0"), NO_CONFIG),
    Row(("scripts/sweep.py", f"--config={CONFIG}"), NO_WORKDIR),
    Row(("scripts/sweep.py", f"--config={CONFIG}", "--workdir="), NO_WORKDIR),
    Row(("scripts/sweep.py", f"--config={CONFIG}", "--workdir"), "Missing value for flag --work"),
    Row(
        sweep("--config=configs/many.py"),
        f"'configs/many.py': expected one configuration, got {CONFIG!r} too.",
    ),
    Row(sweep("--wrokdir=x"), "--wrokdir: expected one of --config, --workdir"),
    Row(sweep("stray"), "'stray': expected flags alone, got a word. Write --flag=value."),
    Row(sweep("--budget=9s", "--budget=8s"), "--budget: expected each flag once, got it 2 times"),
    Row(
        sweep("--config.grid.beta", "0,5"),
        "--config.grid.beta=0,5: expected a decimal point or brackets",
    ),
    Row(
        sweep("--config.grid['beta']=0.5", "--config.grid.beta=1"),
        "--config.grid.beta=1: expected each field once, got --config.grid.beta=0.5 too",
    ),
    Row(sweep("--overwrite=maybe"), "--overwrite=maybe: expected true or false"),
]

FILES = [
    Row(
        sweep(config="@/absent.py"),
        "--config='@/absent.py': expected a readable file, got none (No such",
    ),
    Row(sweep(config="@"), "--config='@': expected a readable file, got none (Is a directory)"),
    Row(sweep(config=""), "--config='': expected a readable file, got none (No such file or"),
    Row(
        sweep(config="configs/quickstart.py:slow"),
        ": expected a file that loads, got an error (form='slow': expected 'full' or 'quick').",
    ),
    Row(sweep(config="configs/toy.py"), "config.adam_b2: expected one of name, data,"),
]
# What a file of one's own may hold, and the sentence after its name.
FILES += [
    Row(sweep(config="@/mine.py"), f"--config='@/mine.py'{sentence}", file("mine.py", content))
    for content, sentence in (
        ("x = 1\ny = (\n", FAULT + "(SyntaxError in line 2: '(' was never closed)"),
        ("\n1 / 0\n", FAULT + "(ZeroDivisionError in line 2: division by zero)"),
        ("import rd_elbow", FAULT + "(ModuleNotFoundError in line 1: No module named"),
        ("config = {}\n", FAULT + "(AttributeError: module 'config_config' has no"),
        (
            "def get_config():\n    return [1]\n",
            ": expected a ConfigDict from get_config, got 'list'",
        ),
        ("def get_config():\n    open('b')\n", FAULT + "(FileNotFoundError in line 2: [Err"),
    )
]
MINE = """
from ml_collections import ConfigDict
from rd_elbo.sweep.config import blank
def get_config():
    config = blank("mine").to_dict() | {"blocks": {"mlp": {"decoder": "mlp", "beta": 1.0}}}
    return ConfigDict(config | {SECTION})
"""
FILES += [
    Row(sweep(config="@/mine.py"), sentence, file("mine.py", MINE.replace("SECTION", section)))
    for section, sentence in (
        ("'optimizer': {}", "config.optimizer: expected one of name, data, base,"),
        ("'data': 'mnist_static'", "data='mnist_static': expected fields, such as those in con"),
        ("'blocks': {'mlp': 3}", "blocks.mlp=3: expected fields"),
        ("'only': 3", "only=3: expected a name or a tuple of names."),
        ("'name': object", "name=<class 'object'>: expected a name, a finite number, or a tuple"),
        ("'blocks': {'a': {'betta': 1.0}}", "axis 'betta': expected one of enc"),
        ("'blocks': {'a': {'beta': __import__('numpy').eye(40)}}", "beta=array([[1., 0., 0., .."),
        ("'blocks': {'a': {'seed': range(3)}}", "seed=range(0, 3): expected a whole number"),
    )
]
