"""ImageFolder: what it lists, in which order, with which labels, and what it says when it cannot."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigrad.data import ImageFolder
from minigrad.errors import ArgumentError, DataError


def put(root: Path, *names: str) -> None:
    """Create small image files root/name, each with a colour of its own."""
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (8, 8), (k, 0, 0)).save(file, "PNG")


def relative(dataset: ImageFolder) -> list[str]:
    return [os.path.relpath(path, dataset.folder) for path in dataset.paths]


def test_lists_sorted_classes_and_every_extension(tmp_path):
    put(tmp_path / "train", "n02/b.JPEG", "n02/a.png", "n01/z.jpg", "n10/x.PNG", "n10/y.JpG", "n10/.hid.jpg")
    (tmp_path / "train" / "n01" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ("n01", "n02", "n10")
    assert relative(dataset) == ["n01/z.jpg", "n02/a.png", "n02/b.JPEG", "n10/x.PNG", "n10/y.JpG"]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2]
    assert len(dataset) == 5


def test_validation_takes_its_numbers_from_train(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "val/a/1.jpg")
    val = ImageFolder(str(tmp_path), "val")
    assert val.classes == ("a", "b", "c")
    assert val.labels.tolist() == [0, 2]  # not 0, 1: b is absent


def test_test_folder_stands_in_for_val_and_val_comes_first(tmp_path):
    put(tmp_path, "train/a/1.jpg", "test/a/1.jpg", "test/a/2.jpg")
    assert len(ImageFolder(tmp_path, "val")) == 2
    put(tmp_path, "val/a/1.jpg")
    assert len(ImageFolder(tmp_path, "val")) == 1
    assert len(ImageFolder(tmp_path, "test")) == 2


def test_split_none_and_explicit_classes(tmp_path):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    assert ImageFolder(tmp_path, None).classes == ("cat", "dog")
    assert ImageFolder(tmp_path, None, classes=["fox", "dog", "cat"]).labels.tolist() == [2, 1]
    with pytest.raises(DataError, match="1 of its folders are not: dog"):
        ImageFolder(tmp_path, None, classes=["cat"])


def test_classes_of_val_that_train_lacks_are_listed(tmp_path):
    put(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "val/x/1.jpg", "val/y/1.jpg")
    with pytest.raises(DataError, match=r"2 of its folders are not: x, y\."):
        ImageFolder(tmp_path, "val")


def test_empty_class_keeps_its_label_and_is_named(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/c/1.jpg")
    (tmp_path / "train" / "b").mkdir()
    with pytest.warns(UserWarning, match="1 class folders of .* hold no image: b"):
        dataset = ImageFolder(tmp_path)
    assert dataset.empty_classes == ("b",)
    assert dataset.labels.tolist() == [0, 2]


def test_nested_folders_and_links(tmp_path):
    put(tmp_path, "train/a/images/1.jpg", "train/a/2.jpg", "elsewhere/3.jpg")
    (tmp_path / "train" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "b2").mkdir()
    (tmp_path / "train" / "b2" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "a" / "loop").symlink_to(tmp_path / "train" / "a")
    dataset = ImageFolder(tmp_path)
    assert relative(dataset) == ["a/2.jpg", "a/images/1.jpg", "b/3.jpg", "b2/link/3.jpg"]
    assert dataset.labels.tolist() == [0, 0, 1, 2]


def test_limit_is_a_seeded_subset_of_each_class(tmp_path):
    put(tmp_path / "train", *(f"{c}/{k:02}.jpg" for c in "ab" for k in range(30)), "c/0.jpg")
    whole = ImageFolder(tmp_path)
    one, again, other = (ImageFolder(tmp_path, limit=10, seed=seed) for seed in (0, 0, 1))
    assert one.paths == again.paths != other.paths
    assert one.paths == sorted(one.paths)
    assert set(one.paths) < set(whole.paths)
    assert np.bincount(one.labels).tolist() == [10, 10, 1]
    # The classes are drawn independently of each other.
    names = [name.split("/")[1] for name in relative(one)]
    assert names[:10] != names[10:20]


def test_image_is_prepared_to_size(tmp_path):
    put(tmp_path, "train/a/0.png", "train/a/1.png")
    image = ImageFolder(tmp_path, size=5).image(1)
    assert image.shape == (5, 5, 3) and image.dtype == np.uint8
    assert (image == (1, 0, 0)).all()


@pytest.mark.parametrize(
    ("files", "root", "split", "message"),
    [
        (["train/a/1.jpg"], "missing", "train", "does not exist"),
        (["train/a/1.jpg"], "train/a/1.jpg", "train", "is a file"),
        (["train/a/1.jpg"], "train", "train", "looks like a split itself: pass its parent"),
        (["a/1.jpg", "b/1.jpg"], ".", "train", r"looked for train/ .* found 2 folders \(a/, b/\).*=None"),
        (["train/a/1.jpg"], ".", "val", r"looked for val/ or test/ in .* found 1 folders \(train/\)"),
        (["val/a/1.jpg"], ".", "val", r"looked for train/ .*found 1 folders \(val/\)\. Pass the"),
        (["train/1.jpg"], ".", "train", r"looked for class folders .* found 1 files \(1.jpg\)\. Move"),
        (["train/a/1.gif"], ".", "train", r"looked for \.jpg, \.jpeg, \.png files in the 1 class folders"),
        (["1.jpg"], ".", "train", r"looked for train/ .* found 1 files \(1.jpg\)"),
    ],
)
def test_errors_say_what_was_looked_for_and_found(tmp_path, files, root, split, message):
    put(tmp_path, *files)
    with pytest.raises(DataError, match=message), warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path / root, split)


@pytest.mark.parametrize(
    "bad", [{"split": "training"}, {"limit": 0}, {"size": 0}, {"seed": -1}, {"classes": ["a", "a"]}]
)
def test_arguments_out_of_range(tmp_path, bad):
    put(tmp_path, "train/a/1.jpg")
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        ImageFolder(tmp_path, **bad)
