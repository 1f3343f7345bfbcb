"""Omniglot: Burda et al.'s characters upright, tensorflow-datasets' drawings averaged exactly."""

import functools
import hashlib
import http.server
import io
import math
import pathlib
import threading
import time
import zipfile

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_elbo import data
from rd_elbo.data import area, network, omniglot, static
from rd_elbo.errors import BadInput

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "omniglot_area28_uint8.npz"
needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="needs Omniglot at 28x28, which is not part of the repository"
)


# Averaging by area.


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
    assert weights.shape == (28, 105) and set(np.unique(weights)) == {
        0,
        7,
        14,
        21,
        28,
    }  # quarters of a pixel
    assert (weights.sum(1) == 105).all() and (weights.sum(0) == 28).all()
    # The first new pixel is three old ones and three quarters of the fourth, and the second begins
    # with its last quarter.
    assert list(weights[0, :5]) == [28, 28, 28, 21, 0] and list(weights[1, 3:8]) == [
        7,
        28,
        28,
        28,
        14,
    ]


def test_a_drawing_becomes_ink():
    drawing = np.where(np.random.RandomState(0).random_sample((105, 105)) < 0.1, 0, 255).astype(
        np.uint8
    )
    drawing[:8, :8] = 0
    small = omniglot.shrink(drawing)
    assert small.dtype == np.uint8 and small[0, 0] == 255
    np.testing.assert_array_equal(small, np.rint(supersampled(255 - drawing, (28, 28))))


# Static binarisation.


def test_splits_are_binarised_by_one_stream_of_draws():
    grey = {
        "train": np.random.RandomState(1).random_sample((5, 4, 3)),
        "test": np.random.RandomState(2).random_sample((2, 4, 3)),
    }
    binary = static.binarise_splits(grey)
    draws = np.random.RandomState(static.BINARISATION_SEED).random_sample(7 * 12).reshape(7, 4, 3)
    np.testing.assert_array_equal(binary["train"], draws[:5] < grey["train"])
    np.testing.assert_array_equal(binary["test"], draws[5:] < grey["test"])


# Burda et al.'s file.


def characters(examples, seed=0):
    """Binary images with an L in the top left corner; no flip, turn or transposition keeps it."""
    images = (np.random.RandomState(seed).random_sample((examples, 28, 28)) < 0.2).astype(float)
    images[:, :8, :8] = 0
    images[:, 0:7, 1] = images[:, 6, 1:5] = 1
    return images


def columns(images):
    """As MATLAB's reshape(image, 784, 1) does."""
    return np.stack([image.flatten(order="F") for image in images], axis=1)


def mat(**arrays):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def burda(train=30, test=10):
    labels = {"target": np.zeros((50, train)), "testtarget": np.zeros((50, test))}
    return mat(data=columns(characters(train)), testdata=columns(characters(test, 1)), **labels)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8])
def test_burdas_characters_stand_upright(tmp_path, kind):
    path = tmp_path / "chardata.mat"
    path.write_bytes(
        mat(
            data=columns(characters(30)).astype(kind),
            testdata=columns(characters(10, 1)).astype(kind),
        )
    )
    dataset = data.load("omniglot_burda", path=path)
    assert list(dataset.splits) == ["train", "test"]
    np.testing.assert_array_equal(dataset.splits["train"], characters(30))
    np.testing.assert_array_equal(dataset.splits["test"], characters(10, 1))


def test_burdas_grey_levels_are_probabilities(tmp_path):
    path = tmp_path / "chardata.mat"
    levels = np.linspace(0, 1, 784)[:, None]
    path.write_bytes(mat(data=np.tile(levels, 4000), testdata=np.tile(levels, 5)))
    dataset = data.load("omniglot_burda", path=path)
    frequencies = dataset.splits["train"].mean(axis=0)
    # Six standard errors; a level goes down the first column first.
    np.testing.assert_allclose(
        frequencies, levels.reshape(28, 28, order="F"), atol=6 * 0.5 / np.sqrt(4000)
    )
    assert frequencies[0, 0] == 0 and frequencies[-1, -1] == 1
    assert data.load("omniglot_burda", path=path).checksum() == dataset.checksum()
    # What is not the real file is not called so.
    assert (
        "4,000 and 5 in place of its 24,345 and 8,070" in dataset.origin
        and "binarised statically" in dataset.origin
    )


def test_the_real_counts_are_burdas(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "BURDA_EXAMPLES", {"train": 30, "test": 10})
    (tmp_path / "chardata.mat").write_bytes(burda())
    origin = data.load("omniglot_burda", path=tmp_path / "chardata.mat").origin
    assert origin.startswith(
        "Omniglot, images and split of Burda et al. 2016 (chardata.mat), "
        "binarised statically with seed"
    )


GOOD = np.zeros((784, 3))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected a readable .mat file"),
        (b"<html>404</html>" * 20, "expected a readable .mat file"),
        (burda()[:5000], "expected a readable .mat file"),
        (
            mat(data=GOOD, labels=GOOD),
            "expected arrays 'data' and 'testdata', got ['data', 'labels']",
        ),
        (
            mat(data=GOOD.T, testdata=GOOD),
            "'data' of path='{path}': expected shape (784, examples), a column",
        ),
        (mat(data=GOOD, testdata=GOOD[:, :0]), "for each image, got (784, 0)."),
        (mat(data=GOOD.reshape(28, 28, 3), testdata=GOOD), "got (28, 28, 3)."),
        (
            mat(data=GOOD, testdata=GOOD + 255),
            "expected values in [0, 1], with ink = 1, got 255.0 to 255.0.",
        ),
        (mat(data=GOOD - 0.01, testdata=GOOD), "got -0.01 to -0.01."),
        (mat(data=GOOD * np.nan, testdata=GOOD), "got nan to nan."),
        (mat(data=GOOD + 1j, testdata=GOOD), "expected numbers in [0, 1], got complex128."),
        (mat(data=scipy.sparse.csc_array(GOOD), testdata=GOOD), "expected numbers in [0, 1], got"),
        (mat(data="characters", testdata=GOOD), "expected numbers in [0, 1], got"),
    ],
)
def test_what_is_no_chardata_is_refused(tmp_path, content, sentence):
    path = tmp_path / "x.mat"
    path.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        data.load("omniglot_burda", path=path)
    assert sentence.format(path=path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_chardata_is_named(tmp_path):
    for path in (tmp_path / "absent.mat", tmp_path):
        with pytest.raises(
            BadInput, match=r"path='.*': expected a readable chardata\.mat, got none \("
        ):
            data.load("omniglot_burda", path=path)


@pytest.fixture
def served(monkeypatch):
    """A host that serves the returned dictionary by path, and lists the paths asked for."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(
        omniglot, "BURDA_URL", f"http://127.0.0.1:{server.server_port}/chardata.mat"
    )
    yield files, asked
    server.shutdown()
    server.server_close()


def test_burdas_file_is_downloaded_once(served, tmp_path):
    files, asked = served
    files["/chardata.mat"] = burda()
    load = functools.partial(data.load, "omniglot_burda", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(load().splits["train"], characters(30))
    np.testing.assert_array_equal(load().splits["test"], characters(10, 1))
    assert len(asked) == 1
    # A damaged file is downloaded anew, not believed.
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1000])
    np.testing.assert_array_equal(load().splits["train"], characters(30))
    assert len(asked) == 2 and kept.read_bytes() == files["/chardata.mat"]


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(served, tmp_path):
    files, _ = served
    files["/chardata.mat"] = burda()
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be written") as caught:
        dataset = data.load("omniglot_burda", cache_dir=tmp_path / "cache")
    assert len(dataset.splits["train"]) == 30
    assert caught[0].filename == __file__  # whoever called `load` is told


def test_a_download_that_fails_leaves_nothing(served, tmp_path):
    files, _ = served
    with pytest.raises(
        BadInput, match=r"'omniglot_burda': expected a download from .*404.*give the file as path"
    ):
        data.load("omniglot_burda", cache_dir=tmp_path)
    files["/chardata.mat"] = b"version https://git-lfs.github.com/spec/v1" * 10
    with pytest.raises(
        BadInput, match=r"what came from .*chardata\.mat: expected a readable \.mat file"
    ):
        data.load("omniglot_burda", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "host", "advice"),
    [
        ("omniglot_burda", "raw.githubusercontent.com", "as path."),
        ("omniglot_tfds", "github.com", "as data_dir,"),
    ],
)
def test_a_network_that_never_answers_costs_seconds(tmp_path, monkeypatch, name, host, advice):
    if name == "omniglot_tfds":
        pytest.importorskip("tensorflow_datasets")
    tried = []

    def silence(address, **_):
        tried.append(address)
        time.sleep(7)
        raise TimeoutError

    for variable in (
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(network.socket, "create_connection", silence)
    began = time.monotonic()
    options = {"data_dir": tmp_path / "tfds"} if name == "omniglot_tfds" else {}
    with pytest.raises(BadInput) as refusal:
        data.load(name, **options, cache_dir=tmp_path / "cache")
    assert time.monotonic() - began < 5
    assert f"at {host}, which cannot be reached" in str(refusal.value) and advice in str(
        refusal.value
    )
    assert "\n" not in str(refusal.value) and name in str(refusal.value)
    assert tried == [(host, 443)]


def test_the_probe_goes_through_the_proxy(monkeypatch):
    tried = []
    monkeypatch.setattr(
        network.socket,
        "create_connection",
        lambda address, **_: tried.append(address) or io.BytesIO(),
    )
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    for variable in (
        "HTTPS_PROXY",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "NO_PROXY",
    ):
        monkeypatch.delenv(variable, raising=False)
    for url in (
        "https://outside.example/x",
        "https://inside.example/x",
        "http://outside.example:8080/x",
    ):
        assert network.reachable(url)
    assert tried == [("proxy.example", 3128), ("inside.example", 443), ("outside.example", 8080)]


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
    ranges = {
        "background": (0, 964),
        "evaluation": (964, 1623),
        "background_small1": (0, 40),
        "background_small2": (40, 70),
    }
    for name, (first, last) in ranges.items():
        with zipfile.ZipFile(folder / f"images_{name}.zip", "w") as archive:
            archive.writestr(f"images_{name}/", b"")
            for label in range(first, last):
                alphabet, character = (
                    (label // 33, label % 33)
                    if label < 964
                    else (30 + (label - 964) // 33, (label - 964) % 33)
                )
                buffer = io.BytesIO()
                image.fromarray(drawing(label)).save(buffer, "png")
                file = f"Alphabet_{alphabet:02}/character{character + 1:02}/{label + 1:04}_01.png"
                archive.writestr(f"images_{name}/{file}", buffer.getvalue())
                archive.writestr(f"__MACOSX/images_{name}/{file}", b"not an image")
    return folder


@pytest.fixture(scope="module")
def expected():
    """Grey images of the synthetic drawings, in order of their labels."""
    return np.stack(
        [np.rint(255 * supersampled(~drawing(label), (28, 28))) for label in range(1623)]
    ).astype(np.uint8)


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
        omniglot.prepare(
            tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False), data_dir
        )
    return data_dir


def test_omniglot_through_tensorflow_datasets(prepared, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "TFDS_EXAMPLES", FEWER)
    load = functools.partial(data.load, "omniglot_tfds", cache_dir=tmp_path / "cache")
    dataset = load(data_dir=prepared)
    assert list(dataset.splits) == ["train", "test"]
    grey = [sorted(map(bytes, images)) for images in (expected[:964], expected[964:])]
    levels = np.frombuffer(b"".join(grey[0] + grey[1]), np.uint8).reshape(1623, 28, 28)
    binary = (
        np.random.RandomState(static.BINARISATION_SEED).random_sample(levels.shape) < levels / 255
    )
    np.testing.assert_array_equal(dataset.splits["train"], binary[:964])
    np.testing.assert_array_equal(dataset.splits["test"], binary[964:])
    assert (
        "not comparable to the paper's" in dataset.origin
        and "binarised statically" in dataset.origin
    )
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

    decoders = {"image": tfds.decode.SkipDecoding()}
    counts = {}
    for split in ("train", "test", "small1", "small2"):
        source = tfds.data_source(
            "omniglot", split=split, data_dir=prepared, decoders=decoders, download=False
        )
        counts[split] = len(source)
        features = source.dataset_info.features
        for example in (source[0], source[len(source) - 1]):
            name = (
                f"{features['alphabet'].int2str(example['alphabet'])}_{example['alphabet_char_id']}"
            )
            assert features["label"].int2str(example["label"]) == name
            label = int(example["label"])
            assert example["alphabet_char_id"] == (label if label < 964 else label - 964) % 33
            with Image.open(io.BytesIO(example["image"])) as image:
                np.testing.assert_array_equal(np.asarray(image), drawing(label))
    assert counts == {"train": 964, "test": 659, "small1": 40, "small2": 30}


def test_other_drawings_are_refused(prepared, tmp_path):
    """Those here are not all 19,280."""
    with pytest.raises(
        BadInput, match=r"split 'train': expected 19,280 drawings, got 964. Remove it"
    ):
        data.load("omniglot_tfds", data_dir=prepared, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_wrong_archive_is_refused(archives, tmp_path):
    """With the checksums of the real ones, these will not do."""
    tfds = pytest.importorskip("tensorflow_datasets")
    with pytest.raises(
        BadInput,
        match=r"'omniglot_tfds': expected files that .* can prepare, got an error \(.*checksum",
    ):
        omniglot.prepare(
            tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False), tmp_path
        )


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
    with pytest.raises(
        BadInput,
        match=r"data\.name to be path or omniglot_burda or omniglot_tfds, got 'mnist_static'",
    ):
        data.load("mnist_static", path="x.npz")
