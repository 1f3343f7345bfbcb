"""Datasets: right pixels from every source, and one sentence where they cannot be had."""

import hashlib
import pathlib
import time

import numpy as np
import pytest

from rd_elbo import data
from rd_elbo.data import larochelle, mnist_static, network, static
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
REAL = SHARED / "larochelle_binarized_mnist_packed.npz"
needs_real = pytest.mark.skipif(
    not REAL.exists(),
    reason="needs Larochelle & Murray's pixels, which are not part of the repository",
)


def test_embedded_digits():
    dataset = data.load("mnist_static")
    sizes = {"train": 50_000, "valid": 10_000, "test": 10_000}
    shapes = {name: images.shape for name, images in dataset.splits.items()}
    assert shapes == {name: (size, 28, 28) for name, size in sizes.items()}
    means = [round(float(dataset.splits[split].mean()), 4) for split in ("train", "valid", "test")]
    assert means == [0.1309, 0.1291, 0.1325]
    pixels = np.concatenate([dataset.splits[split] for split in ("train", "valid", "test")])
    packed = np.packbits(pixels.reshape(70_000, -1), axis=1).tobytes()
    assert hashlib.sha256(packed).hexdigest() == mnist_static.PACKED_SHA256


def test_embedded_digits_are_no_one_elses():
    """A binarisation of MNIST, but not that of Larochelle & Murray."""
    bits = np.packbits(larochelle.canonical(data.load().splits["test"]).reshape(10_000, -1), axis=1)
    assert hashlib.sha256(bits.tobytes()).hexdigest() != larochelle.CANONICAL_SHA256["test"]


def test_a_damaged_package_is_noticed(tmp_path, monkeypatch):
    content = bytearray(mnist_static.FILE.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "mnist_static.xz"
    damaged.write_bytes(content)
    monkeypatch.setattr(mnist_static, "FILE", damaged)
    with pytest.raises(BadInput, match="Reinstall"):
        data.load("mnist_static")


def test_binarisation_has_the_right_probabilities():
    grey = np.repeat(np.array([0, 51, 128, 255], np.uint8), 20_000).reshape(4, 200, 100)
    ones = static.binarise(grey).reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(ones, np.array([0, 51, 128, 255]) / 255, atol=0.012)
    assert ones[0] == 0 and ones[3] == 1
    np.testing.assert_array_equal(static.binarise(grey), static.binarise(grey))


@pytest.mark.parametrize("shape", [(3, 28, 28), (5, 3, 3), (1, 1, 1)])
def test_packing_round_trip(shape):
    images = (np.random.RandomState(0).random_sample(shape) < 0.5).astype(np.uint8)
    import lzma

    unpacked = static.unpack_bits(lzma.decompress(static.pack(images)), shape[1:])
    np.testing.assert_array_equal(unpacked, images)


@pytest.fixture(scope="module")
def text_files(tmp_path_factory):
    """The three original text files, rebuilt from the packed pixels."""
    folder = tmp_path_factory.mktemp("amat")
    with np.load(REAL) as packed:
        for split in packed.files:
            digits = np.unpackbits(packed[split], axis=1) + ord("0")
            text = np.full((len(digits), 2 * 784), ord(" "), np.uint8)
            text[:, ::2], text[:, -1] = digits, ord("\n")
            (folder / f"binarized_mnist_{split}.amat").write_bytes(text.tobytes())
    return folder


@needs_real
def test_larochelle_from_files_and_from_the_cache(text_files, tmp_path):
    cache = tmp_path / "cache"
    dataset = data.load("binarized_mnist", manual_dir=text_files, cache_dir=cache)
    with np.load(REAL) as packed:
        for split, images in dataset.splits.items():
            # The same images, in canonical order.
            ours = np.packbits(images.reshape(len(images), -1), axis=1)
            order = np.lexsort(packed[split].T[::-1])
            np.testing.assert_array_equal(ours, packed[split][order])
    # A second time, from the cache alone.
    again = data.load("binarized_mnist", manual_dir=tmp_path / "nowhere", cache_dir=cache)
    assert again.checksum() == dataset.checksum()
    # A damaged cache is made anew, not believed.
    damaged = cache / "binarized_mnist_test.xz"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    again = data.load("binarized_mnist", manual_dir=text_files, cache_dir=cache)
    assert again.checksum() == dataset.checksum()


@needs_real
def test_larochelle_through_tensorflow_datasets(text_files, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    # The first few of each split, so that preparing them takes a moment.
    few, parse = 300, larochelle.parse
    monkeypatch.setattr(larochelle, "parse", lambda content: parse(content)[:few])
    with np.load(REAL) as packed:
        bits = {split: np.unpackbits(packed[split][:few], axis=1) for split in packed.files}
    expected = {split: larochelle.canonical(rows) for split, rows in bits.items()}
    again = {split: np.packbits(rows, axis=1).tobytes() for split, rows in expected.items()}
    digests = {split: hashlib.sha256(packed).hexdigest() for split, packed in again.items()}
    monkeypatch.setattr(larochelle, "CANONICAL_SHA256", digests)
    download = tfds.download.DownloadConfig(manual_dir=text_files, try_download_gcs=False)
    larochelle.prepare(download, tmp_path / "tfds")
    dataset = data.load("binarized_mnist", data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache")
    for split, bits in expected.items():
        np.testing.assert_array_equal(dataset.splits[split].reshape(few, -1), bits)


@needs_real
def test_a_changed_byte_is_refused(text_files, tmp_path):
    for path in text_files.iterdir():
        content = bytearray(path.read_bytes())
        if "valid" in path.name:
            content[1000] ^= 1
        (tmp_path / path.name).write_bytes(content)
    sentence = r"manual_dir=.*: expected binarized_mnist_valid\.amat of SHA-256 1de3d397c40f"
    with pytest.raises(BadInput, match=sentence):
        data.load("binarized_mnist", manual_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_a_missing_dataset_is_one_sentence_within_five_seconds(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")

    # A network that never answers.
    def silence(*_, **__):
        time.sleep(7)
        raise TimeoutError

    monkeypatch.setattr(network.socket, "create_connection", silence)
    began = time.monotonic()
    with pytest.raises(BadInput) as refusal:
        data.load("binarized_mnist", data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache")
    assert time.monotonic() - began < 5
    assert "cannot be reached" in str(refusal.value) and "manual_dir" in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    sentence = r"expected a readable binarized_mnist_train\.amat, got none"
    with pytest.raises(BadInput, match=sentence):
        data.load("binarized_mnist", manual_dir=tmp_path, cache_dir=tmp_path / "cache")


def binary(*shape):
    return (np.random.RandomState(0).random_sample(shape) < 0.5).astype(np.uint8)


def test_a_users_own_images(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, train=binary(6, 5, 4).astype(bool), test=binary(3, 5, 4).astype(float))
    dataset = data.load("path", path=path)
    np.testing.assert_array_equal(dataset.splits["train"], binary(6, 5, 4))
    assert dataset.image_shape == (5, 4) and dataset.splits["test"].dtype == np.uint8

    grey = np.random.RandomState(1).randint(0, 256, (70, 5, 4)).astype(np.uint8)
    np.savez(path, images=grey)
    splits = data.load("path", path=path).splits
    sizes = {name: len(images) for name, images in splits.items()}
    assert sizes == {"train": 50, "valid": 10, "test": 10}
    everything = np.concatenate(list(splits.values())).reshape(70, -1)
    expected = static.binarise(grey).reshape(70, -1)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, expected))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (dict(train=binary(5), test=binary(5)), "none of them 0, got (5,)."),
        (dict(train=binary(0, 4, 4), test=binary(5, 4, 4)), "none of them 0"),
        (dict(train=np.full((5, 4, 4), np.nan), test=binary(5, 4, 4)), "NaN"),
        (dict(train=binary(5, 4, 4) * 2, test=binary(5, 4, 4).astype(int)), "array 'test' of"),
        (
            dict(train=binary(5, 4, 4) * 3.5, test=binary(5, 4, 4)),
            "or floats in both, got float64 and uint8",
        ),
        (
            dict(train=binary(5, 4, 4).astype(int) - 1, test=binary(5, 4, 4)),
            "expected zeros and ones, uint8 grey levels",
        ),
        (dict(train=binary(5, 4, 4), test=binary(5, 4, 5)), "examples of one shape"),
        (dict(train=binary(5, 4, 4)), "expected arrays 'train' and 'test', or 'images', got"),
        (dict(images=binary(3, 4, 4)), "at least 7 examples, got 3"),
        (
            dict(train=np.array(["a", "b"]).reshape(2, 1, 1), test=binary(5, 4, 4)),
            "expected real numbers, got <U1",
        ),
    ],
)
def test_bad_images_are_refused(tmp_path, arrays, sentence):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(BadInput) as refusal:
        data.load("path", path=path)
    assert sentence in str(refusal.value)


def test_bad_requests(tmp_path):
    with pytest.raises(BadInput, match=r"data\.name='mnst': expected one of 'mnist_static'"):
        data.load("mnst")
    with pytest.raises(BadInput, match=r"path=None: expected an \.npz"):
        data.load("path")
    with pytest.raises(BadInput, match=r"expected data\.name to be path or"):
        data.load("mnist_static", path="x.npz")
    for content in (b"", b"no archive", b"PK\x03\x04 torn"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(BadInput, match="expected a readable"):
            data.load("path", path=tmp_path / "x.npz")
    with pytest.raises(BadInput, match="expected a readable"):
        data.load("path", path=tmp_path / "absent.npz")


def test_head_takes_a_mixed_part():
    """Files may be sorted: the first rows alone would not do."""
    ramp = np.zeros((100, 2, 2), np.uint8)
    ramp[50:] = 1
    part = Dataset("ramp", {"train": ramp, "test": ramp}, "test").head(20)
    assert len(part.splits["train"]) == 20 and 0.2 < part.splits["train"].mean() < 0.8


@needs_real
def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(text_files, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be written"):
        dataset = data.load("binarized_mnist", manual_dir=text_files, cache_dir=tmp_path / "cache")
    assert len(dataset.splits["train"]) == 50_000
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
