"""Datasets of tensorflow-datasets by their names: the arrays that went in, or one sentence."""

import io

import numpy as np
import PIL.Image
import pytest

import rd_elbo as rd

tfds = pytest.importorskip("tensorflow_datasets")

RANDOM = np.random.RandomState(0)
GREY = RANDOM.randint(0, 256, (9, 6, 4, 1)).astype(np.uint8)
GREY[0, 0, 0] = 255
COLOUR = RANDOM.randint(0, 256, (6, 3, 5, 3)).astype(np.uint8)
REAL = RANDOM.standard_normal((14, 3)).astype(np.float32)
PICTURE = tfds.features.Image(shape=(None, None, 1))


def png(image):
    """The file of an image: without TensorFlow, no array is encoded."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def build(folder, called, features, splits):
    """Prepare a dataset in `folder`; `splits` has dictionaries of arrays."""

    def examples(arrays):
        for i in range(len(next(iter(arrays.values())))):
            own = {
                key: png(array[i]) if key == "image" else array[i] for key, array in arrays.items()
            }
            # A label, which is no example, is beside them.
            yield i, {"label": i % 2, **own}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name, VERSION = called, tfds.core.Version("1.2.0")
        pkg_dir_path = folder

        def _info(self):
            whole = tfds.features.FeaturesDict({**features, "label": np.int64})
            return self.dataset_info_from_configs(features=whole)

        def _split_generators(self, dl_manager):
            return {split: examples(arrays) for split, arrays in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    Builder(data_dir=folder, file_format="array_record").download_and_prepare()


def rows(examples):
    """Examples in an order of their own: tensorflow-datasets shuffles what it prepares."""
    return sorted(examples.reshape(len(examples), -1).tolist())


def test_images_by_the_name_in_the_folder(tmp_path):
    splits = {
        "train": {"image": GREY},
        "validation": {"image": GREY[:3]},
        "test": {"image": GREY[3:]},
    }
    build(tmp_path, "drawings", {"image": PICTURE}, splits)
    kept = rd.load_data("drawings", data_dir=tmp_path, binarise=False)
    assert kept.kind == "grey" and list(kept.splits) == ["train", "valid", "test"]
    for split, images in (("train", GREY), ("valid", GREY[:3]), ("test", GREY[3:])):
        assert rows(kept.splits[split]) == rows(images)
    assert kept.origin.startswith("tensorflow-datasets' drawings/1.2.0, 'image', 6x4, grey")
    drawn = rd.load_data("drawings", data_dir=tmp_path)
    assert drawn.kind == "binary" and "binarised with seed" in drawn.origin
    black, white = kept.splits["train"] == 0, kept.splits["train"] == 255
    assert not drawn.splits["train"][black].any() and drawn.splits["train"][white].all()


def test_colour_without_a_test_split(tmp_path):
    picture = tfds.features.Image(shape=(3, 5, 3))
    build(
        tmp_path,
        "photos",
        {"image": picture},
        {"train": {"image": COLOUR}, "validation": {"image": COLOUR[:2]}},
    )
    photos = rd.load_data("photos", data_dir=tmp_path, binarise=False)
    assert photos.image_shape == (3, 5, 3) and list(photos.splits) == ["train", "test"]
    assert (
        rows(photos.splits["test"]) == rows(COLOUR[:2])
        and "split 'validation' as test" in photos.origin
    )


def test_vectors_of_one_split(tmp_path):
    feature = tfds.features.Tensor(shape=(3,), dtype=np.float32)
    build(tmp_path, "numbers", {"position": feature}, {"train": {"position": REAL}})
    numbers = rd.load_data("numbers", data_dir=tmp_path)
    assert numbers.kind == "real" and [len(e) for e in numbers.splits.values()] == [10, 2, 2]
    assert rows(np.concatenate(list(numbers.splits.values()))) == rows(REAL)


SIZES = [np.zeros((4, 4, 1), np.uint8), np.zeros((4, 5, 1), np.uint8)]
VECTOR = tfds.features.Tensor(shape=(3,), dtype=np.float32)


@pytest.mark.parametrize(
    ("features", "splits", "sentence"),
    [
        (
            {"image": PICTURE},
            {"train": {"image": SIZES}},
            r"expected examples of one shape, got \(4, [45]\) and",
        ),
        ({"image": PICTURE}, {"test": {"image": GREY}}, "expected a split 'train', got 'test'"),
        (
            {"a": VECTOR, "b": VECTOR},
            {"train": {"a": REAL, "b": REAL}},
            "one array of numbers, got 'a', 'b'",
        ),
        ({}, {"train": {"label": [0, 1]}}, "one array of numbers, got none"),
        (
            {"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)},
            {"train": {"image": [np.zeros((4, 4, 1), np.uint16)]}},
            "got uint16 of 1",
        ),
    ],
)
def test_what_cannot_be_taken(tmp_path, features, splits, sentence):
    build(tmp_path, "odd", features, splits)
    with pytest.raises(rd.BadInput, match=f"data.name='odd': .*{sentence}"):
        rd.load_data("odd", data_dir=tmp_path)


def test_what_is_not_prepared_or_not_known(tmp_path):
    with pytest.raises(
        rd.BadInput,
        match=r"'cifar10': expected files of array_record in .*, got none. Run `tfds build",
    ):
        rd.load_data("cifar10", data_dir=tmp_path)
    for name in ("mnst", "no name", ""):
        with pytest.raises(
            rd.BadInput, match=f"data.name='{name}': expected one of 'mnist_static', .* got neither"
        ):
            rd.load_data(name)
    with pytest.raises(
        rd.BadInput, match=r"path='x': expected data.name to be path or .*, got 'cifar10'"
    ):
        rd.load_data("cifar10", path="x")
