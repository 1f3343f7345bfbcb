"""Omniglot of Burda et al.: characters upright, downloads kept, or one sentence."""

import functools
import http.server
import io
import threading
import time

import numpy as np
import pytest
import scipy.io

from rd_elbo import data
from rd_elbo.data import network, omniglot, static
from rd_elbo.errors import BadInput


def test_splits_are_binarised_by_one_stream_of_draws():
    shapes = {"train": (5, 4, 3), "test": (2, 4, 3)}
    grey = {k: np.random.RandomState(1).random_sample(shape) for k, shape in shapes.items()}
    binary = static.binarise_splits(grey)
    draws = np.random.RandomState(static.BINARISATION_SEED).random_sample(7 * 12).reshape(7, 4, 3)
    np.testing.assert_array_equal(binary["train"], draws[:5] < grey["train"])
    np.testing.assert_array_equal(binary["test"], draws[5:] < grey["test"])


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
    train, test = (columns(images).astype(kind) for images in (characters(30), characters(10, 1)))
    path.write_bytes(mat(data=train, testdata=test))
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
    expected = levels.reshape(28, 28, order="F")
    np.testing.assert_allclose(frequencies, expected, atol=6 * 0.5 / np.sqrt(4000))
    assert frequencies[0, 0] == 0 and frequencies[-1, -1] == 1
    assert data.load("omniglot_burda", path=path).checksum() == dataset.checksum()
    # What is not the real file is not called so.
    assert "4,000 and 5 in place of its 24,345 and 8,070" in dataset.origin
    assert "binarised statically" in dataset.origin


def test_the_real_counts_are_burdas(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "BURDA_EXAMPLES", {"train": 30, "test": 10})
    (tmp_path / "chardata.mat").write_bytes(burda())
    origin = data.load("omniglot_burda", path=tmp_path / "chardata.mat").origin
    source = "Omniglot, images and split of Burda et al. 2016 (chardata.mat)"
    assert origin.startswith(f"{source}, binarised statically with seed")


GOOD = np.zeros((784, 3))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected a readable .mat file"),
        (b"<html>404</html>" * 20, "expected a readable .mat file"),
        (burda()[:5000], "expected a readable .mat file"),
        (mat(data=GOOD, labels=GOOD), "arrays 'data' and 'testdata', got ['data', 'labels']"),
        (mat(data=GOOD.T, testdata=GOOD), "'data' of path='{path}': expected shape (784, exam"),
        (mat(data=GOOD, testdata=GOOD[:, :0]), "for each image, got (784, 0)."),
        (mat(data=GOOD.reshape(28, 28, 3), testdata=GOOD), "got (28, 28, 3)."),
        (mat(data=GOOD, testdata=GOOD + 255), "values in [0, 1], with ink = 1, got 255.0 to 255"),
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
    sentence = r"path='.*': expected a readable chardata\.mat, got none \("
    for path in (tmp_path / "absent.mat", tmp_path):
        with pytest.raises(BadInput, match=sentence):
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
    url = f"http://127.0.0.1:{server.server_port}/chardata.mat"
    monkeypatch.setattr(omniglot, "BURDA_URL", url)
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
    sentence = r"'omniglot_burda': expected a download from .*404.*give the file as path"
    with pytest.raises(BadInput, match=sentence):
        data.load("omniglot_burda", cache_dir=tmp_path)
    files["/chardata.mat"] = b"version https://git-lfs.github.com/spec/v1" * 10
    sentence = r"what came from .*chardata\.mat: expected a readable \.mat file"
    with pytest.raises(BadInput, match=sentence):
        data.load("omniglot_burda", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def without_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


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

    without_proxies(monkeypatch)
    monkeypatch.setattr(network.socket, "create_connection", silence)
    began = time.monotonic()
    options = {"data_dir": tmp_path / "tfds"} if name == "omniglot_tfds" else {}
    with pytest.raises(BadInput) as refusal:
        data.load(name, **options, cache_dir=tmp_path / "cache")
    assert time.monotonic() - began < 5
    said = str(refusal.value)
    assert f"at {host}, which cannot be reached" in said and advice in said
    assert "\n" not in said and name in said
    assert tried == [(host, 443)]


def test_the_probe_goes_through_the_proxy(monkeypatch):
    tried = []

    def connect(address, **_):
        tried.append(address)
        return io.BytesIO()

    monkeypatch.setattr(network.socket, "create_connection", connect)
    without_proxies(monkeypatch)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    for url in ("https://outside.example", "https://inside.example", "http://outside.example:8080"):
        assert network.reachable(f"{url}/x")
    assert tried == [("proxy.example", 3128), ("inside.example", 443), ("outside.example", 8080)]
