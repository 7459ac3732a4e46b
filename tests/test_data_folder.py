"""ImageFolder: what it lists, in which order, with which labels, and what it says when it cannot."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigrad.data import ImageFolder, Loader
from minigrad.data.folder import EXTENSIONS, SYSTEM_FOLDERS
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
    with pytest.warns(UserWarning):  # of the names and endings it passes over: below
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
    with pytest.warns(UserWarning, match="1 links below .* lead back into the dataset: a/loop$"):
        dataset = ImageFolder(tmp_path)
    assert relative(dataset) == ["a/2.jpg", "a/images/1.jpg", "b/3.jpg", "b2/link/3.jpg"]
    assert dataset.labels.tolist() == [0, 0, 1, 2]


def told(*arguments, **options) -> tuple[ImageFolder, list[str]]:
    """The dataset, and what its warnings say, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = ImageFolder(*arguments, **options)
    assert all(warning.filename == __file__ for warning in caught)  # they point at who made the dataset
    return dataset, [str(warning.message) for warning in caught]


def test_every_ending_that_the_reader_reads(tmp_path):
    endings = [".webp", ".gif", ".bmp", ".jfif", ".jpe", ".JPG", ".jpeg", ".png"]
    put(tmp_path / "train", *(f"a/x{ending}" for ending in endings))
    dataset, said = told(tmp_path)
    assert sorted(relative(dataset)) == sorted(f"a/x{ending}" for ending in endings) and not said
    assert sorted(EXTENSIONS) == sorted(ending.lower() for ending in endings)


def test_files_of_other_endings_are_counted_by_ending(tmp_path):
    put(tmp_path / "train", "a/1.jpg", *(f"a/{k}.tif" for k in range(7)), "b/1.jpg", "b/notes.txt", "b/none")
    put(tmp_path / "train", "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini")
    dataset, said = told(tmp_path)
    assert relative(dataset) == ["a/1.jpg", "b/1.jpg"]
    (line,) = said
    assert line.startswith(f"ImageFolder: 9 files below '{tmp_path}/train' passed over for their endings: ")
    assert line.endswith("1 without an ending (b/none), 7 .tif (a/0.tif, a/1.tif and 5 more), 1 .txt (b/notes.txt)")


def test_numbers_after_the_dot_are_not_a_kind_each(tmp_path):
    put(tmp_path / "train", "a/1.jpg", *(f"a/x.{k:04}" for k in range(150)))
    (line,) = told(tmp_path)[1]
    assert "150 files below" in line and line.endswith(" and 91 more")  # ten shown of a hundred, and all others


def test_pictures_beside_the_class_folders_are_counted(tmp_path):
    put(tmp_path / "train", "a/1.jpg", "x.jpg", "y.png", "README.md")
    dataset, said = told(tmp_path)
    assert relative(dataset) == ["a/1.jpg"]
    assert len(said) == 1 and "2 pictures below" in said[0] and said[0].endswith("have no class: x.jpg, y.png")


def test_folders_of_systems_are_no_classes(tmp_path):
    put(tmp_path / "train", *(f"{name}/1.jpg" for name in SYSTEM_FOLDERS), ".ipynb_checkpoints/1.jpg", "b/1.jpg")
    put(tmp_path / "train", "b/@eadir/1.jpg/THUMB.jpg", "b/._1.jpg")
    dataset, said = told(tmp_path)
    assert dataset.classes == ("b",) and relative(dataset) == ["b/1.jpg"]
    assert len(said) == 1 and f"{len(SYSTEM_FOLDERS) + 3} folders or pictures below" in said[0]
    assert "#recycle" in said[0] and "and 4 more" in said[0]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/all", ".."),
        ("train/a/up", "../.."),
        ("train/a/further", "../../.."),
        ("train/a/train", ".."),
        ("train/a/more", "../../val/a"),
        ("train/twin", "a"),
        ("train/a/other", "../b"),
        ("train/held", "../test"),
    ],
)
def test_links_that_lead_back_are_not_followed(tmp_path, link, target):
    root = tmp_path / "set"
    put(root, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "test/a/3.jpg")
    put(tmp_path, "stray.jpg")
    (root / link).symlink_to(target)
    dataset, said = told(root)
    assert dataset.classes == ("a", "b") and relative(dataset) == ["a/1.jpg", "b/1.jpg"]
    assert len(said) == 1 and said[0].endswith(f"lead back into the dataset: {link.removeprefix('train/')}")


def test_links_to_elsewhere_are_followed(tmp_path):
    """Also where the splits themselves are links, inside the root, and beside a split; a circle outside ends."""
    put(tmp_path, "disk/train/a/1.jpg", "disk/val/a/2.jpg", "set/pool/b/3.jpg", "far/p/4.jpg", "disk/train2/d/5.jpg")
    for split in ("train", "val"):
        (tmp_path / "set" / split).symlink_to(tmp_path / "disk" / split)
    (tmp_path / "disk" / "train" / "b").symlink_to(tmp_path / "set" / "pool" / "b")
    (tmp_path / "disk" / "train" / "c").symlink_to(tmp_path / "far")
    (tmp_path / "disk" / "train" / "d").symlink_to(tmp_path / "disk" / "train2" / "d")
    (tmp_path / "far" / "p" / "back").symlink_to(tmp_path / "far")
    dataset, said = told(tmp_path / "set")
    assert relative(dataset) == ["a/1.jpg", "b/3.jpg", "c/p/4.jpg", "d/5.jpg"] and not said
    assert told(tmp_path / "set", "val")[1] == []


def test_val_that_is_train_is_told(tmp_path):
    put(tmp_path, "train/a/1.jpg")
    (tmp_path / "val").symlink_to("train")
    assert "it tests on what was trained on" in told(tmp_path, "val")[1][0]
    assert told(tmp_path, "train")[1] == []


def test_a_class_whose_link_leads_nowhere_is_not_left_out(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/c/1.jpg")
    (tmp_path / "train" / "b").symlink_to("/gone/b")
    with pytest.raises(DataError, match=r"train/b' is a link to '/gone/b', which cannot be reached\. Bring"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("denied", ["set", "set/train", "set/train/a", "set/train/a/deep"])
def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch, denied):
    """By a system call that fails: the superuser, who runs some tests, may read everything."""
    put(tmp_path, "set/train/a/1.jpg", "set/train/a/deep/2.jpg", "set/train/b/1.jpg", "set/val/a/1.jpg")
    scandir = os.scandir

    def failing(path):
        if os.fspath(path) == str(tmp_path / denied):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    if denied != "set":
        monkeypatch.setattr(os, "scandir", failing)
        split = "train" if denied.endswith(("a", "deep")) else "val"
    else:
        monkeypatch.setattr(os, "stat", failing_stat(tmp_path / denied))
        split = "train"
    with pytest.raises(DataError, match=rf"cannot read '{tmp_path / denied}': PermissionError: Permission denied\. Ch"):
        ImageFolder(tmp_path / "set", split)


def failing_stat(denied: Path):
    stat = os.stat

    def failing(path, *rest, **options):
        if not isinstance(path, int) and os.fspath(path) == str(denied):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *rest, **options)

    return failing


def test_names_that_no_folder_has(tmp_path):
    with pytest.raises(DataError, match="cannot read 'x+': OSError: File name too long"):
        ImageFolder("x" * 300)
    with pytest.raises(DataError, match=r"'a\\x00b' should be a folder"):
        ImageFolder("a\0b")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are any bytes on Linux alone")
def test_names_are_told_so_that_any_terminal_can_show_them(tmp_path):
    train = os.path.join(os.fsencode(tmp_path), b"\x1b[2J\n", b"train")
    os.makedirs(os.path.join(train, b"b\xff\x1b[31m\n"))
    for name in (b"b\xff\x1b[31m\n/1\xfe\n.jpg", b"2\xfe\n.jpg", b"b\xff\x1b[31m\n/3\xfe\n.tif"):
        with open(os.path.join(train, name), "wb") as file:
            file.write(b"no image")
    dataset, said = told(os.fsdecode(os.path.dirname(train)))
    assert dataset.classes == ("b\udcff\x1b[31m\n",)  # the name itself is kept: it opens the files
    with warnings.catch_warnings(record=True) as caught, pytest.raises(DataError) as none:
        warnings.simplefilter("always")
        loader = Loader(dataset, 1)
        list(loader)
    with pytest.raises(DataError) as unknown:
        ImageFolder(dataset.root, classes=["\x1b"])
    with pytest.raises(DataError) as missing:
        ImageFolder(dataset.root, "val")
    lines = [*said, *(str(w.message) for w in caught), str(none.value), str(unknown.value), str(missing.value)]
    lines += [repr(dataset), *str(loader.report).split("\n")]
    assert all(line.isprintable() and line.encode() for line in lines)
    assert len(said) == 2 and len(caught) == 1 and "/1\\xfe\\n.jpg" in str(loader.report)


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
        (
            ["train/a/1.tif"],
            ".",
            "train",
            r"looked for \.jpg, .*\.webp files in the 1 class .*none; 1 files .* 1 \.tif",
        ),
        (["train/a/1.jpg", "validation/a/1.jpg"], ".", "val", r"\(train/, validation/\)\. Rename validation/ to val/"),
        (["train/a/1.jpg", "Val/a/1.jpg"], ".", "val", r"Rename Val/ to val/\.$"),
        (["Train/a/1.jpg", "val/a/1.jpg"], ".", "train", r"Rename Train/ to train/\.$"),
        (["train/a/1.jpg", "other/a/1.jpg"], ".", "val", r"Pass the folder that holds val/ or test/"),
        (["test/a/b/1.txt"], "test", "train", r"Pass the folder that holds train/"),
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


@pytest.mark.parametrize(
    "setting", [{"size": 0}, {"size": 8.0}, {"limit": 0}, {"limit": "3"}, {"seed": -1}, {"seed": None}]
)
def test_settings_are_whole_numbers(tmp_path, setting):
    put(tmp_path, "train/a/1.jpg")
    with pytest.raises(ArgumentError, match=f"ImageFolder: {list(setting)[0]} must be an integer >= [01], got"):
        ImageFolder(tmp_path, **setting)
