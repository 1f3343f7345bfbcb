"""Examples of a user's own: what is made of them, what is said of it, and what is refused."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest

import rd_elbo as rd
from rd_elbo import data
from rd_elbo.data import static
from rd_elbo.errors import BadInput

RANDOM = np.random.RandomState(1)
LEVELS = RANDOM.randint(0, 256, (14, 5, 4)).astype(np.uint8)
COLOUR = RANDOM.randint(0, 256, (14, 5, 4, 3)).astype(np.uint8)
REAL = RANDOM.standard_normal((14, 6))


def png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)


def test_levels_are_binarised_by_default_and_kept_when_told():
    binary = rd.Dataset.from_arrays(train=LEVELS, test=LEVELS[:3])
    assert binary.kind == "binary" and binary.scale == 1.0
    np.testing.assert_array_equal(binary.splits["train"], static.binarise(LEVELS))
    said = f"5x4, grey {LEVELS.min()} to {LEVELS.max()}, mean"
    assert said in binary.origin and "binarised" in binary.origin
    kept = rd.Dataset.from_arrays(train=LEVELS, test=LEVELS[:3], binarise=False)
    assert kept.kind == "grey" and kept.scale == 255.0 and kept.splits["train"] is LEVELS
    assert said in kept.origin and "binarised" not in kept.origin
    mean = np.concatenate([LEVELS, LEVELS[:3]]).mean() / 255
    assert f"mean {mean:.2g}" in kept.origin
    assert kept.checksum() != binary.checksum()
    assert kept.checksum() == rd.Dataset.from_arrays(LEVELS, LEVELS[:3], binarise=False).checksum()


def test_colour_and_real_values():
    colour = rd.Dataset.from_arrays(train=COLOUR, test=COLOUR, valid=COLOUR, binarise=False)
    assert (colour.kind, colour.image_shape) == ("grey", (5, 4, 3)) and len(colour.splits) == 3
    assert "5x4x3, colour 0 to" in colour.origin
    real = rd.Dataset.from_arrays(train=REAL, test=REAL[:5], name="mine")
    assert (real.kind, real.name, real.image_shape) == ("real", "mine", (6,))
    assert real.splits["train"].dtype == np.float32 and "vectors of 6, real -" in real.origin
    np.testing.assert_array_equal(real.splits["test"], REAL[:5].astype(np.float32))
    assert real.range == (np.float32(REAL.min()), np.float32(REAL.max()))
    vectors = rd.Dataset.from_arrays(train=REAL > 0, test=(REAL > 0).astype(float))
    assert vectors.kind == "binary" and vectors.splits["test"].dtype == np.uint8


def test_a_channel_axis_of_one_is_dropped():
    single = rd.Dataset.from_arrays(LEVELS[..., None], LEVELS[..., None], binarise=False)
    np.testing.assert_array_equal(single.splits["test"], LEVELS)


def test_floats_are_probabilities_where_that_is_said():
    values = np.repeat([0.0, 0.25, 1.0], 4000).reshape(3, 40, 100)
    ones = rd.Dataset.from_arrays(values, values, binarise=True).splits["train"].mean((1, 2))
    assert ones[0] == 0 and abs(ones[1] - 0.25) < 0.03 and ones[2] == 1
    with pytest.raises(BadInput, match=r"binarise=True: expected values in \[0, 1\], got -"):
        rd.Dataset.from_arrays(REAL, REAL, binarise=True)


def test_dark_images_are_taken_when_told():
    dark = LEVELS // 3
    with pytest.raises(BadInput, match=r"got levels up to 8.*nearly black"):
        rd.Dataset.from_arrays(dark, dark)
    np.testing.assert_array_equal(
        rd.Dataset.from_arrays(dark, dark, binarise=True).splits["train"], static.binarise(dark)
    )
    assert rd.Dataset.from_arrays(dark, dark, binarise=False).range[1] == 85


@pytest.mark.parametrize(
    ("train", "test", "binarise", "named"),
    [
        # Binarised, the test images would be black.
        (LEVELS, LEVELS // 128, None, ("'test'", " 1 to 255", "0 to 1")),
        (LEVELS, LEVELS // 128, False, ("'test'", " 1 to 255", "0 to 1")),
        (LEVELS // 128, LEVELS, None, ("'train'", " 1 to 255", "0 to 1")),
        (LEVELS, LEVELS // 3, None, ("'test'", " 1 to 255", "0 to 85", "binarise=False")),
        (LEVELS / 255, LEVELS.astype(float), None, ("'train'", " 1 to 255", "to 1. Scale")),
        (LEVELS - 128.0, LEVELS / 255, None, ("'test'", "-127 to 127", "to 1. Scale")),
        (LEVELS / 2.55, LEVELS // 128 * 1.0, None, ("'test'", "to 100", "0 to 1")),
    ],
)
def test_splits_on_different_scales_are_refused(train, test, binarise, named):
    with pytest.raises(BadInput) as refusal:
        rd.Dataset.from_arrays(train, test, binarise=binarise)
    said = str(refusal.value)
    assert said.startswith(f"array {named[0]}: ") and all(words in said for words in named), said


def test_splits_that_differ_by_chance_are_taken():
    counts = (RANDOM.random((9, 40)) < 0.1) * 1.0
    for train, test in (
        (LEVELS, np.minimum(LEVELS[:2], 140)),
        (REAL, np.full((1, 6), 0.5)),
        (REAL * 100, np.full((1, 6), 0.5)),
        (REAL, np.full((9, 6), 0.5)),
        # Of words, say, of which one is frequent in one text.
        (np.vstack([counts, np.where(np.arange(40) == 3, 100, counts[:1])]), counts),
    ):
        assert len(rd.Dataset.from_arrays(train, test).splits["test"]) == len(test)
    dark = rd.Dataset.from_arrays(LEVELS, LEVELS // 3, binarise=False)
    assert dark.splits["test"].max() == 85


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ((np.tile(LEVELS.transpose(1, 2, 0), 4),) * 2, "examples seem to be on the last axis"),
        ((np.zeros((4, 4, 9)), np.zeros((4, 4, 9))), "np.transpose(a, (2, 0, 1))"),
        ((np.ones((20, 20, 200)) * 0.5,) * 2, "examples seem to be on the last axis"),
        ((COLOUR.transpose(0, 3, 1, 2),) * 2, "np.transpose(a, (0, 2, 3, 1))"),
        ((COLOUR.transpose(1, 2, 3, 0),) * 2, "np.transpose(a, (3, 0, 1, 2))"),
        ((np.repeat(COLOUR, 2, -1)[..., :4],) * 2, "Leave out what is not red, green or blue"),
        ((LEVELS.reshape(14, 20),) * 2, "got (14, 20). Reshape it"),
        (
            (LEVELS, LEVELS / 255),
            "array 'train' and array 'test': expected uint8 levels in both, or floats in both, "
            "got uint8",
        ),
        ((LEVELS.astype(int),) * 2, "got int64 from 1 to 255."),
        ((REAL, REAL[:, :5]), "examples of one shape, got (5,), (6,)."),
        ((REAL[0], REAL[0]), "none of them 0, got (6,)."),
        ((REAL, [[1.0], [1.0, 2.0]]), "array 'test': expected an array of numbers"),
        ((REAL, REAL * np.inf), "array 'test': expected finite values"),
        ((REAL, REAL * 1e50), "array 'test': expected values that float32 can hold"),
        ((REAL, REAL[:0]), "none of them 0, got (0, 6)."),
    ],
)
def test_what_cannot_be_meant_is_refused(arrays, sentence):
    with pytest.raises(BadInput) as refusal:
        rd.Dataset.from_arrays(*arrays)
    assert sentence in str(refusal.value)


def test_a_dataset_checks_its_kind():
    for kind, array, words in (
        ("binary", LEVELS, "expected uint8 in {0, 1}, got uint8 up to 255. Give"),
        ("grey", REAL, "expected uint8 levels, got float64."),
        ("real", REAL, "expected finite float32, got float64 from"),
        ("colour", LEVELS, "kind='colour': expected one of 'binary', 'grey', 'real'."),
    ):
        with pytest.raises(BadInput) as refusal:
            rd.Dataset("mine", {"train": array, "test": array}, "a test's", kind)
        assert words in str(refusal.value)
    with pytest.raises(BadInput, match="split='validation': expected one of"):
        rd.Dataset.from_arrays(LEVELS, LEVELS).__class__(
            "mine", dict.fromkeys(("train", "test", "validation"), LEVELS % 2), "a test's"
        )


def test_one_array_is_split_alike_in_every_format(tmp_path):
    np.save(tmp_path / "mine.npy", LEVELS)
    np.savez(tmp_path / "mine.npz", images=LEVELS, labels=np.arange(14))
    for i, image in enumerate(LEVELS):
        png(tmp_path / "mine" / f"{i:02}.png", image)
    (tmp_path / "mine" / "notes.txt").write_text("ignored")
    (tmp_path / "mine" / "._00.png").write_text("of another system")
    found = [rd.load_data("path", path=tmp_path / f"mine{end}") for end in (".npy", ".npz", "")]
    assert len({dataset.checksum() for dataset in found}) == 1
    sizes = {split: len(images) for split, images in found[0].splits.items()}
    assert sizes == {"train": 10, "valid": 2, "test": 2}
    assert all("split 5 : 1 : 1 after a fixed shuffle" in dataset.origin for dataset in found)
    assert found[2].origin.startswith("folder mine, 5x4, grey")
    # Every image once.
    kept = rd.load_data("path", path=tmp_path / "mine", binarise=False)
    everything = np.concatenate(list(kept.splits.values()))
    assert sorted(map(bytes, everything)) == sorted(map(bytes, LEVELS))


def test_folders_of_splits_and_colours(tmp_path):
    for i, image in enumerate(COLOUR):
        png(tmp_path / ("train" if i < 9 else "test") / f"class_{i % 2}" / f"{i}.PNG", image)
    dataset = rd.load_data("path", path=tmp_path, binarise=False)
    assert {split: len(images) for split, images in dataset.splits.items()} == {
        "train": 9,
        "test": 5,
    }
    np.testing.assert_array_equal(dataset.splits["train"][:5], COLOUR[[0, 2, 4, 6, 8]])
    assert "colour" in dataset.origin and "5 : 1 : 1" not in dataset.origin
    # The same arrays in an .npz are the same data.
    splits = dataset.splits
    np.savez(tmp_path / "mine.npz", **splits)
    assert rd.load_data("path", path=tmp_path / "mine.npz", binarise=False).checksum() == (
        dataset.checksum()
    )


def test_drawings_of_one_bit(tmp_path):
    for split in ("train", "test"):
        PIL.Image.fromarray(LEVELS[0] > 127).save(tmp_path / f"{split}.png")
        png(tmp_path / split / "a.png", LEVELS[0])
        PIL.Image.fromarray(LEVELS[0] > 127).save(tmp_path / split / "a.png")
        (tmp_path / f"{split}.png").unlink()
    splits = rd.load_data("path", path=tmp_path).splits
    np.testing.assert_array_equal(splits["test"][0], LEVELS[0] > 127)


def folder(tmp_path, **files):
    for name, image in files.items():
        png(tmp_path / f"{name.replace('_', '/')}.png", image)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "expected PNGs, got a folder without one"),
        ({"train_0": LEVELS[0]}, "got train without 'test'"),
        ({"train_0": LEVELS[0], "test_0": LEVELS[1], "a": LEVELS[2]}, "got 'a.png' beside them"),
        ({"a": LEVELS[0], "b": LEVELS[0, :4]}, "expected 5x4 grey, as 'a.png' is, got 4x4 grey"),
        ({"a": LEVELS[0], "b": COLOUR[0]}, "got 5x4 colour"),
        ({"a": np.repeat(COLOUR[0], 2, -1)[..., :4]}, "got mode RGBA. Convert it"),
        ({"a": LEVELS[0].astype(np.uint16)}, "got mode I;16. Convert it"),
    ],
)
def test_folders_that_are_refused(tmp_path, files, sentence):
    folder(tmp_path, **files)
    with pytest.raises(BadInput) as refusal:
        rd.load_data("path", path=tmp_path)
    assert sentence in str(refusal.value)


def test_damaged_pictures_are_named(tmp_path):
    folder(tmp_path, a=LEVELS[0], b=LEVELS[1])
    whole = (tmp_path / "b.png").read_bytes()
    for content in (whole[:50], b"GIF89a", b""):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(BadInput, match=r"b\.png': expected a readable PNG"):
            rd.load_data("path", path=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": LEVELS, "masks": LEVELS}, "got 'masks' of shape (14, 5, 4) too"),
        ({"train": LEVELS, "test": LEVELS, "extra": LEVELS[:2]}, "got 'extra' of shape (2, 5, 4)"),
        ({"images": LEVELS, "train": LEVELS}, "got 'images' and 'train'. Keep one"),
        (
            {"images": LEVELS, "names": np.array([{}] * 14)},
            "plain numbers, got array 'names' of pickled",
        ),
        ({"images": LEVELS // 3}, "got levels of"),
    ],
)
def test_archives_that_are_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(BadInput) as refusal:
        rd.load_data("path", path=tmp_path / "mine.npz")
    said = str(refusal.value)
    assert sentence in said and "mine.npz" in said


def test_single_arrays_that_are_refused(tmp_path):
    path = tmp_path / "mine.npy"
    np.save(path, np.array([{}] * 9), allow_pickle=True)
    with pytest.raises(BadInput, match="plain numbers, got one array of pickled"):
        rd.load_data("path", path=path)
    np.save(path, LEVELS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"expected a readable \.npy"):
        rd.load_data("path", path=path)


def test_binarise_is_for_data_that_have_levels():
    with pytest.raises(
        BadInput, match=r"binarise=False: expected data\.name to be path or omniglot"
    ):
        rd.load_data("mnist_static", binarise=False)
    with pytest.raises(BadInput, match="binarise='no': expected True or False"):
        rd.load_data("path", path="x.npz", binarise="no")


@pytest.mark.parametrize("end", ["npz", "npy"])
def test_loading_takes_little_more_than_the_arrays(tmp_path, end):
    levels = RANDOM.randint(0, 256, (7000, 28, 28)).astype(np.uint8)
    path = tmp_path / f"mine.{end}"
    np.savez(path, images=levels) if end == "npz" else np.save(path, levels)
    data.load("path", path=path)
    tracemalloc.start()
    try:
        dataset = data.load("path", path=path)
        assert len(dataset.splits["train"]) == 5000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The file's array, the binary one, its splits, and stretches of uniforms.
    assert peak < 3 * levels.nbytes + 25e6


def test_omniglot_keeps_its_levels_when_told(tmp_path, monkeypatch):
    from rd_elbo.data import omniglot

    monkeypatch.setattr(omniglot, "TFDS_EXAMPLES", {"train": 9, "test": 5})
    monkeypatch.setattr(omniglot, "_SHAPE", (5, 4))
    np.savez(tmp_path / "omniglot.npz", images=LEVELS)
    path = tmp_path / "omniglot.npz"
    kept = rd.load_data("omniglot_tfds", path=path, binarise=False)
    assert kept.kind == "grey" and "8-bit levels kept" in kept.origin
    binary = rd.load_data("omniglot_tfds", path=path)
    expected = static.binarise_splits({s: x / 255.0 for s, x in kept.splits.items()})
    for split, images in binary.splits.items():
        np.testing.assert_array_equal(images, expected[split])
