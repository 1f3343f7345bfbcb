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


HERE, NPZ = "'@/images.npz'", "path='@/images.npz' is not a readable .npz of images"
KIND = "path='@/images.npz' is not a readable .npz, .npy or folder of PNGs"
NEEDS = "but needs 'train' and 'test', or 'images'"
REAL = "but must hold real numbers"
BINARY = "but must be in {0, 1}, or uint8 grey levels, or floats"
UNFIT = "likelihood='bernoulli': expected data of zeros and ones, got"
GREY = "--config.data.binarise=False"
COLOUR = np.stack([IMAGES] * 3, -1)
TURNED = np.tile(IMAGES.T, 2)
OWN = [
    Row(sweep("--config.data.name=path"), "dataset 'path' needs path=, the .npz, .npy or folder"),
    Row(own(), f"{KIND} ([Errno 2] No such file or directory"),
    Row(own(), f"path={HERE}: expected PNGs, got a", lambda at: (at / "images.npz").mkdir()),
    Row(own(), f"{NPZ} (it does not begin as one)", file("images.npz", "0 1 0 1\n")),
    Row(own(), f"{NPZ} (it does not begin as one)", file("images.npz", "")),
    Row(own(), f"{NPZ} (File is not a zip file)", truncated),
    Row(own(), f"{NPZ} (Bad CRC-32 for file 'train.npy')", flipped),
    Row(own("--config.train.batch_size=7"), "batch_size=7 is more than the 6 examples", single),
    Row(own(), f"{NPZ} ('train' in it is no array)", archived),
    Row(own(), "array 'train' is pickled Python objects", pair(IMAGES.astype(object))),
    Row(own(), f"{HERE} has arrays [] {NEEDS}", arrays()),
    Row(own(), f"{HERE} has arrays ['train'] {NEEDS}", arrays(train=IMAGES)),
    Row(own(), f"{HERE}: expected one array of ex", arrays(images=IMAGES, masks=IMAGES)),
    Row(own(), f"array 'train' of {HERE} has shape (128,)", pair(IMAGES.ravel())),
    Row(own(), "images of one shape, not [(3, 4), (4, 4)]", pair(IMAGES, IMAGES[:, :3])),
    Row(own(), f"array 'test' of {HERE} has shape (0, 4, 4)", pair(IMAGES, IMAGES[:0])),
    Row(own(), "has 6 examples; a split needs at least 7", arrays(images=IMAGES[:6])),
    Row(own(), f"holds <U3 {REAL}", pair(IMAGES.astype(str))),
    Row(own(), f"holds complex128 {REAL}", pair(IMAGES.astype(complex))),
    Row(own(), f"holds timedelta64[s] {REAL}", pair(IMAGES.astype("m8[s]"))),
    Row(own(), f"array 'train' of {HERE} holds NaN or infinite values", pair(NOT_NUMBERS)),
    Row(own(), f"holds int64 from -1 to 0 {BINARY}", pair(-IMAGES.astype(int))),
    Row(own(), f"holds uint16 from 0 to 300 {BINARY}", pair(np.uint16(300) * IMAGES)),
    Row(own(), f"to 255, got levels of {HERE} up to 100", arrays(images=100 * IMAGES)),
    Row(own(), "examples seem to be on the last axis", pair(TURNED, TURNED)),
    Row(own(), f"{UNFIT} real values. 'continuous_ber", pair(2.0 * IMAGES, 1.0 * IMAGES)),
    Row(own(GREY), f"{UNFIT} 8-bit levels. 'discretised", pair(255 * IMAGES, 255 * IMAGES)),
    Row(own(), "'pixelcnn': expected images (height, width), got ex", pair(COLOUR, COLOUR)),
    Row(own("--config.data.splits=valid"), "'path' has train, test", pair(IMAGES)),
    # So the file of these rows is one that would do.
    Row(own("--config.train.batch_size=9"), "batch_size=9 is more than the 8 ex", pair(IMAGES)),
]

BURDA = sweep("--config.data.name=omniglot_burda", "--config.data.path=@/chardata.mat")
TFDS = sweep("--config.data.name=omniglot_tfds", "--config.data.path=@/images.npz")
AMAT = sweep("--config.data.name=binarized_mnist", "--config.data.manual_dir=@")
LARGE, NAN = np.full((784, 9), 255.0), np.full((784, 9), np.nan)
MAT = "path='@/chardata.mat'"
RANGE = "but must have them in [0, 1]"
NAMED = [
    Row(BURDA, f"{MAT} is not a readable chardata.mat (No such file or directory)"),
    Row(BURDA, f"{MAT} is not a readable .mat file", file("chardata.mat", "0 1\n")),
    Row(BURDA, f"{MAT} is not a readable .mat file", halved),
    Row(BURDA, f"{MAT} has arrays ['x'] but chardata.mat has 'data' and", columns(x=COLUMNS)),
    Row(
        BURDA,
        f"array 'data' of {MAT} has shape (9, 784) but must be (784, examples)",
        columns(data=COLUMNS.T, testdata=COLUMNS),
    ),
    Row(
        BURDA,
        f"array 'testdata' of {MAT} has values from 255.0 to 255.0 {RANGE}",
        columns(data=COLUMNS, testdata=LARGE),
    ),
    Row(
        BURDA,
        f"array 'data' of {MAT} has values from nan to nan {RANGE}",
        columns(data=NAN, testdata=COLUMNS),
    ),
    Row(
        TFDS,
        "is uint8 of shape (8, 4, 4) but must be uint8 of shape (32460, 28, 28)",
        arrays(images=IMAGES),
    ),
    Row(AMAT, "manual_dir='@' has no readable binarized_mnist_train.amat (No such file or dir"),
    Row(
        AMAT,
        "binarized_mnist_train.amat in manual_dir is not Larochelle & Murray's file",
        file("binarized_mnist_train.amat", "0 1\n"),
    ),
]
