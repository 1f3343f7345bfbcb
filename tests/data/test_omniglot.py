"""Omniglot of tensorflow-datasets: drawings averaged exactly by area, or one sentence."""

import functools
import hashlib
import io
import math
import pathlib
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_elbo import data
from rd_elbo.data import area, omniglot, static
from rd_elbo.errors import BadInput

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "omniglot_area28_uint8.npz"
needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="needs Omniglot at 28x28, which is not part of the repository"
)


def supersampled(image, size):
    """Repeat pixels until the new grid's edges fall between them, then average blocks."""
    fine = image.astype(float)
    for axis, new in enumerate(size):
        fine = np.repeat(fine, math.lcm(image.shape[axis], new) // image.shape[axis], axis)
    return fine.reshape(size[0], len(fine) // size[0], size[1], -1).mean(axis=(1, 3))


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 13)] * 4), st.integers(0, 2**32 - 1))
def test_area_averages_are_those_of_a_fine_grid(shape, seed):
    images = np.random.RandomState(seed).randint(0, 256, (2, *shape[:2])).astype(np.uint8)
    expected = [supersampled(image, shape[2:]) for image in images]
    np.testing.assert_allclose(area.average(images, shape[2:]), expected, rtol=1e-12)


def test_area_weights_of_omniglot():
    weights = area.overlaps(105, 28)
    assert weights.shape == (28, 105)
    assert set(np.unique(weights)) == {0, 7, 14, 21, 28}  # quarters of a pixel
    assert (weights.sum(1) == 105).all() and (weights.sum(0) == 28).all()
    # The first new pixel is three old ones and three quarters of the fourth, and the second begins
    # with its last quarter.
    assert list(weights[0, :5]) == [28, 28, 28, 21, 0]
    assert list(weights[1, 3:8]) == [7, 28, 28, 28, 14]


def test_a_drawing_becomes_ink():
    white = np.random.RandomState(0).random_sample((105, 105)) >= 0.1
    drawing = np.where(white, 255, 0).astype(np.uint8)
    drawing[:8, :8] = 0
    small = omniglot.shrink(drawing)
    assert small.dtype == np.uint8 and small[0, 0] == 255
    np.testing.assert_array_equal(small, np.rint(supersampled(255 - drawing, (28, 28))))


# tensorflow-datasets' drawings.

# One drawing in place of twenty of each character, in all the alphabets.
FEWER = {"train": 964, "test": 659}


def drawing(label):
    """Mode "1", as in the real archives: True is white."""
    ink = np.random.RandomState(label).random_sample((105, 105)) < 0.1
    ink[30:60, 20 : 20 + label % 60] = True
    return ~ink


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("archives")
    # Labels 0 to 963 in 30 alphabets, 964 to 1622 in 20 more; the small ones have some of the first
    # again.
    ranges = {"background": (0, 964), "evaluation": (964, 1623)}
    ranges |= {"background_small1": (0, 40), "background_small2": (40, 70)}
    for name, (first, last) in ranges.items():
        with zipfile.ZipFile(folder / f"images_{name}.zip", "w") as archive:
            archive.writestr(f"images_{name}/", b"")
            for label in range(first, last):
                first_label, before = (0, 0) if label < 964 else (964, 30)
                alphabet, character = divmod(label - first_label, 33)
                alphabet += before
                buffer = io.BytesIO()
                image.fromarray(drawing(label)).save(buffer, "png")
                file = f"Alphabet_{alphabet:02}/character{character + 1:02}/{label + 1:04}_01.png"
                archive.writestr(f"images_{name}/{file}", buffer.getvalue())
                archive.writestr(f"__MACOSX/images_{name}/{file}", b"not an image")
    return folder


@pytest.fixture(scope="module")
def expected():
    """Grey images of the synthetic drawings, in order of their labels."""
    inks = [supersampled(~drawing(label), (28, 28)) for label in range(1623)]
    return np.rint(255 * np.stack(inks)).astype(np.uint8)


@pytest.fixture(scope="module")
def prepared(archives, tmp_path_factory):
    """What tensorflow-datasets makes of them, where they are."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.core.download.checksums import UrlInfo

    original = tfds.builder_cls("omniglot")
    infos = {}
    for url, info in original.url_infos.items():
        content = (archives / info.filename).read_bytes()
        infos[url] = UrlInfo(len(content), hashlib.sha256(content).hexdigest(), info.filename)
    data_dir = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(original, "url_infos", infos)
        download = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
        omniglot.prepare(download, data_dir)
    return data_dir


def test_omniglot_through_tensorflow_datasets(prepared, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "TFDS_EXAMPLES", FEWER)
    load = functools.partial(data.load, "omniglot_tfds", cache_dir=tmp_path / "cache")
    dataset = load(data_dir=prepared)
    assert list(dataset.splits) == ["train", "test"]
    grey = [sorted(map(bytes, images)) for images in (expected[:964], expected[964:])]
    levels = np.frombuffer(b"".join(grey[0] + grey[1]), np.uint8).reshape(1623, 28, 28)
    draws = np.random.RandomState(static.BINARISATION_SEED).random_sample(levels.shape)
    binary = draws < levels / 255
    np.testing.assert_array_equal(dataset.splits["train"], binary[:964])
    np.testing.assert_array_equal(dataset.splits["test"], binary[964:])
    assert "not comparable to the paper's" in dataset.origin
    assert "binarised statically" in dataset.origin
    # A second time from the cache alone; a damaged one is made anew, not believed.
    assert load(data_dir=tmp_path / "nowhere").checksum() == dataset.checksum()
    (kept,) = (tmp_path / "cache").iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert load(data_dir=prepared).checksum() == dataset.checksum()
    np.savez(kept, train=expected[:900], test=expected[964:])
    assert load(data_dir=prepared).checksum() == dataset.checksum()
    # The same images from a user's file are the same data.
    np.savez(tmp_path / "mine.npz", images=expected)
    assert data.load("omniglot_tfds", path=tmp_path / "mine.npz").checksum() == dataset.checksum()


def test_what_is_prepared_is_whole_for_others_too(prepared):
    tfds = pytest.importorskip("tensorflow_datasets")
    from PIL import Image

    options = {"decoders": {"image": tfds.decode.SkipDecoding()}, "download": False}
    counts = {}
    for split in ("train", "test", "small1", "small2"):
        source = tfds.data_source("omniglot", split=split, data_dir=prepared, **options)
        counts[split] = len(source)
        features = source.dataset_info.features
        for example in (source[0], source[len(source) - 1]):
            alphabet = features["alphabet"].int2str(example["alphabet"])
            name = f"{alphabet}_{example['alphabet_char_id']}"
            assert features["label"].int2str(example["label"]) == name
            label = int(example["label"])
            assert example["alphabet_char_id"] == (label if label < 964 else label - 964) % 33
            with Image.open(io.BytesIO(example["image"])) as image:
                np.testing.assert_array_equal(np.asarray(image), drawing(label))
    assert counts == {"train": 964, "test": 659, "small1": 40, "small2": 30}


def test_other_drawings_are_refused(prepared, tmp_path):
    """Those here are not all 19,280."""
    sentence = r"split 'train': expected 19,280 drawings, got 964. Remove it"
    with pytest.raises(BadInput, match=sentence):
        data.load("omniglot_tfds", data_dir=prepared, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_wrong_archive_is_refused(archives, tmp_path):
    """With the checksums of the real ones, these will not do."""
    tfds = pytest.importorskip("tensorflow_datasets")
    download = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
    sentence = r"'omniglot_tfds': expected files that .* can prepare, got an error \(.*checksum"
    with pytest.raises(BadInput, match=sentence):
        omniglot.prepare(download, tmp_path)


SHAPE = (32_460, 28, 28)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (dict(train=np.zeros((2, 28, 28), np.uint8)), "expected an array 'images', got ['train']"),
        (dict(images=np.zeros((5, 28, 28), np.uint8)), "got uint8 of shape (5, 28, 28)"),
        (dict(images=np.broadcast_to(np.int16(7), SHAPE)), "got int16 of shape (32460, 28, 28)"),
    ],
)
def test_bad_drawings_are_refused(tmp_path, arrays, sentence):
    np.savez_compressed(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadInput) as refusal:
        data.load("omniglot_tfds", path=tmp_path / "bad.npz")
    assert sentence in str(refusal.value)


def test_a_missing_npz_is_named(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    for name in ("absent.npz", "torn.npz"):
        with pytest.raises(BadInput, match=f"path='.*{name}': expected a readable .npz of images"):
            data.load("omniglot_tfds", path=tmp_path / name)


@needs_real
def test_omniglot_from_a_users_file():
    dataset = data.load("omniglot_tfds", path=REAL)
    with np.load(REAL) as archive:
        images = archive["images"]
    # Every grey level is a mean of black and white pixels over quarters of them, as `shrink` makes
    # it.
    assert set(np.unique(images)) == set(np.rint(255 * np.arange(226) / 225).astype(int))
    assert list(dataset.splits) == ["train", "test"]
    for split, grey in {"train": images[:19_280], "test": images[19_280:]}.items():
        binary, p = dataset.splits[split], grey / 255
        assert binary.shape == grey.shape
        assert abs(binary.mean() - p.mean()) < 5 * np.sqrt((p * (1 - p)).sum()) / p.size
        ordered = np.frombuffer(b"".join(sorted(map(bytes, grey))), np.uint8).reshape(grey.shape)
        assert not binary[ordered == 0].any() and binary[ordered == 255].all()
    assert "not comparable to the paper's" in dataset.origin


def test_path_is_for_three_names():
    sentence = r"data\.name to be path or omniglot_burda or omniglot_tfds, got 'mnist_static'"
    with pytest.raises(BadInput, match=sentence):
        data.load("mnist_static", path="x.npz")
