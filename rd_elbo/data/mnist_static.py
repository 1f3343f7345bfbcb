"""The embedded default: MNIST, statically binarised with a recorded seed.

It has all 70,000 digits. The same distribution as the file of Larochelle & Murray (2011) but
another draw, so it is never called theirs. Attribution: MNIST, Y. LeCun, C. Cortes, C. J. C.
Burges, CC BY-SA 3.0; see NOTICE. `scripts/build_mnist_static.py` rebuilds the file.
"""

import hashlib
import lzma
import pathlib

import numpy as np

from rd_elbo.data.static import unpack_bits
from rd_elbo.errors import BadInput

FILE = pathlib.Path(__file__).with_name("mnist_static.xz")
PACKED_SHA256 = "927e3e575b032003537d4415973ee5a579f5e1b0650bad55013cb2403498877b"
_TRAIN, _VALID = 50_000, 10_000


def read() -> dict[str, np.ndarray]:
    """Splits of 50,000, 10,000 and 10,000 images in MNIST's order.

    Each is (examples, 28, 28), uint8 in {0, 1}.
    """
    try:
        bits = lzma.decompress(FILE.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise BadInput(
            f"{FILE.name}: expected the embedded digits, got no readable file ({error}). Reinstall "
            "rd_elbo."
        ) from error
    if hashlib.sha256(bits).hexdigest() != PACKED_SHA256:
        raise BadInput(
            f"{FILE.name}: expected the embedded digits, got a file of another SHA-256. Reinstall "
            "rd_elbo."
        )
    images = unpack_bits(bits, (28, 28))
    return {
        "train": images[:_TRAIN],
        "valid": images[_TRAIN : _TRAIN + _VALID],
        "test": images[_TRAIN + _VALID :],
    }
