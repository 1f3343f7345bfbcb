"""Data of a user's own."""

import zipfile

import numpy as np
import scipy.io

from bad_inputs.row import Row, file, sweep

IMAGES = np.zeros((8, 4, 4), np.uint8)
IMAGES[:, 0, 0] = 1
NOT_NUMBERS = IMAGES.astype(float)
NOT_NUMBERS[0, 0, 0] = np.nan


def arrays(**given):
    return lambda folder: np.savez(folder / "images.npz", **given)


def pair(train, test=IMAGES):
    return arrays(train=train, test=test)


def archived(folder):
    with zipfile.ZipFile(folder / "images.npz", "w") as archive:
        archive.writestr("train", "text")
        archive.writestr("test", "text")


def truncated(folder):
    pair(IMAGES)(folder)
    (folder / "images.npz").write_bytes((folder / "images.npz").read_bytes()[:300])


def flipped(folder):
    pair(IMAGES)(folder)
    content = bytearray((folder / "images.npz").read_bytes())
    content[200] ^= 1
    (folder / "images.npz").write_bytes(content)


def single(folder):
    with (folder / "images.npz").open("wb") as opened:
        np.save(opened, IMAGES)


COLUMNS = np.zeros((784, 9))


def columns(**given):
    return lambda folder: scipy.io.savemat(folder / "chardata.mat", given)


def halved(folder):
    columns(data=COLUMNS, testdata=COLUMNS)(folder)
    (folder / "chardata.mat").write_bytes((folder / "chardata.mat").read_bytes()[:5000])


def own(*arguments):
    return sweep("--config.data.name=path", "--config.data.path=@/images.npz", *arguments)


HERE, NPZ = "'@/images.npz'", "path='@/images.npz': expected a readable .npz of images, got none"
KIND = "path='@/images.npz': expected a readable .npz, .npy or folder of PNGs, got none"
NEEDS = "expected arrays 'train' and 'test', or 'images', got"
REAL = "expected real numbers, got"
BINARY = "expected zeros and ones, uint8 grey levels, or floats, got"
UNFIT = "likelihood='bernoulli': expected data of zeros and ones, got"
GREY = "--config.data.binarise=False"
COLOUR = np.stack([IMAGES] * 3, -1)
TURNED = np.tile(IMAGES.T, 2)
OWN = [
    Row(sweep("--config.data.name=path"), "path=None: expected an .npz, an .npy or a folder"),
    Row(own(), f"{KIND} ([Errno 2] No such file or directory"),
    Row(own(), f"path={HERE}: expected PNGs, got a", lambda at: (at / "images.npz").mkdir()),
    Row(own(), f"{NPZ} (it does not begin as one)", file("images.npz", "0 1 0 1\n")),
    Row(own(), f"{NPZ} (it does not begin as one)", file("images.npz", "")),
    Row(own(), f"{NPZ} (File is not a zip file)", truncated),
    Row(own(), f"{NPZ} (Bad CRC-32 for file 'train.npy')", flipped),
    Row(own("--config.train.batch_size=7"), "batch_size=7: expected at most 6, the ex", single),
    Row(own(), f"{NPZ} ('train' in it is no array)", archived),
    Row(own(), "plain numbers, got array 'train' of pickled", pair(IMAGES.astype(object))),
    Row(own(), f"{HERE}: {NEEDS} []", arrays()),
    Row(own(), f"{HERE}: {NEEDS} ['train']", arrays(train=IMAGES)),
    Row(own(), f"{HERE}: expected one array of ex", arrays(images=IMAGES, masks=IMAGES)),
    Row(own(), "none of them 0, got (128,).", pair(IMAGES.ravel())),
    Row(own(), "examples of one shape, got (3, 4), (4, 4).", pair(IMAGES, IMAGES[:, :3])),
    Row(own(), "none of them 0, got (0, 4, 4).", pair(IMAGES, IMAGES[:0])),
    Row(own(), "expected at least 7 examples, got 6.", arrays(images=IMAGES[:6])),
    Row(own(), f"{REAL} <U3", pair(IMAGES.astype(str))),
    Row(own(), f"{REAL} complex128", pair(IMAGES.astype(complex))),
    Row(own(), f"{REAL} timedelta64[s]", pair(IMAGES.astype("m8[s]"))),
    Row(own(), f"array 'train' of {HERE}: expected finite values, got NaN", pair(NOT_NUMBERS)),
    Row(own(), f"{BINARY} int64 from -1 to 0.", pair(-IMAGES.astype(int))),
    Row(own(), f"{BINARY} uint16 from 0 to 300.", pair(np.uint16(300) * IMAGES)),
    Row(own(), f"to 255, got levels of {HERE} up to 100", arrays(images=100 * IMAGES)),
    Row(own(), "in which examples seem to be on the last axis", pair(TURNED, TURNED)),
    Row(own(), f"{UNFIT} real values. 'gaussian' will", pair(2.0 * IMAGES, 1.0 * IMAGES)),
    Row(own(), f"{UNFIT} real values. 'continuous_ber", pair(0.5 * IMAGES, 1.0 * IMAGES)),
    Row(own(), f"{HERE}: expected values on the scale of array 'train'", pair(255 * IMAGES)),
    Row(own(GREY), f"{UNFIT} 8-bit levels. 'discretised", pair(255 * IMAGES, 255 * IMAGES)),
    Row(own(), "'pixelcnn': expected images (height, width), got ex", pair(COLOUR, COLOUR)),
    Row(
        own("--config.data.splits=valid"),
        "data.splits='valid': expected one of train, test",
        pair(IMAGES),
    ),
    # So the file of these rows is one that would do.
    Row(own("--config.train.batch_size=9"), "batch_size=9: expected at most 8, the", pair(IMAGES)),
]

BURDA = sweep("--config.data.name=omniglot_burda", "--config.data.path=@/chardata.mat")
TFDS = sweep("--config.data.name=omniglot_tfds", "--config.data.path=@/images.npz")
AMAT = sweep("--config.data.name=binarized_mnist", "--config.data.manual_dir=@")
LARGE, NAN = np.full((784, 9), 255.0), np.full((784, 9), np.nan)
MAT = "path='@/chardata.mat'"
RANGE = "expected values in [0, 1], with ink = 1, got"
NAMED = [
    Row(BURDA, f"{MAT}: expected a readable chardata.mat, got none (No such file or directory)"),
    Row(BURDA, f"{MAT}: expected a readable .mat file, got none", file("chardata.mat", "0 1\n")),
    Row(BURDA, f"{MAT}: expected a readable .mat file, got none", halved),
    Row(BURDA, f"{MAT}: expected arrays 'data' and 'testdata', got ['x'].", columns(x=COLUMNS)),
    Row(
        BURDA,
        f"array 'data' of {MAT}: expected shape (784, examples), a column for each image, "
        "got (9, 784).",
        columns(data=COLUMNS.T, testdata=COLUMNS),
    ),
    Row(
        BURDA,
        f"array 'testdata' of {MAT}: {RANGE} 255.0 to 255.0.",
        columns(data=COLUMNS, testdata=LARGE),
    ),
    Row(
        BURDA,
        f"array 'data' of {MAT}: {RANGE} nan to nan.",
        columns(data=NAN, testdata=COLUMNS),
    ),
    Row(
        TFDS,
        "expected uint8 of shape (32460, 28, 28), the 19,280 drawings",
        arrays(images=IMAGES),
    ),
    Row(AMAT, "manual_dir='@': expected a readable binarized_mnist_train.amat, got none (No such"),
    Row(
        AMAT,
        "manual_dir='@': expected binarized_mnist_train.amat of SHA-256",
        file("binarized_mnist_train.amat", "0 1\n"),
    ),
]
