"""ILSVRC2012's official files: every form of them, the labels of its flat validation pictures, and what is refused."""

import os
import shutil
import sys
import tarfile
from pathlib import Path

import made_ilsvrc as made
import numpy as np
import pytest
from made_ilsvrc import IDS, WNIDS, WORDS

from minigrad.data import ImageFolder, Loader, SourceImages, UnreadableImageError, find_source
from minigrad.data.augment import CenterView
from minigrad.data.ilsvrc import DEVKIT, TRAIN, VAL
from minigrad.errors import DataError, MissingDependencyError

needs_scipy = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("scipy") is None,
    reason="meta.mat is read by scipy, which is not installed",
)
NONE = {"odd": False}


def listed(listing):
    return [listing.name(i) for i in range(len(listing))]


def unpacked(folder: Path, path: Path) -> Path:
    with tarfile.open(path) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def in_form(root: Path, form: str) -> Path:
    """The official files of `root`, unpacked as people do."""
    if form in ("tars", "class folders", "named folders"):
        train = unpacked(root / ("ILSVRC2012_img_train" if form == "named folders" else "train"), root / TRAIN)
        os.remove(root / TRAIN)
        if form != "tars":
            for path in sorted(train.glob("*.tar")):
                unpacked(train / path.stem, path)
                os.remove(path)
        unpacked(root / ("ILSVRC2012_img_val" if form == "named folders" else "val"), root / VAL)
        os.remove(root / VAL)
        unpacked(root, root / DEVKIT)
        os.remove(root / DEVKIT)
    return root


@needs_scipy
@pytest.mark.parametrize("form", ["official", "tars", "class folders", "named folders"])
def test_every_form_gives_the_same_pictures_and_labels(tmp_path, form):
    assert sorted(IDS, key=IDS.get) != list(WNIDS)  # else the numbers need no mapping, and this tests nothing
    source = find_source(in_form(made.make(tmp_path / "root"), form))
    assert source.kind == "ILSVRC2012" and source.classes == WNIDS and source.words == WORDS and not source.missing
    train, val = source.split("train"), source.split("val")
    pictures = made.training_pictures()
    top = "ILSVRC2012_img_train" if form == "named folders" else "train"
    assert listed(train) == [f"{top}/{wnid}/{name}" for wnid in WNIDS for name in sorted(pictures[wnid])]
    for i in range(len(train)):
        _, wnid, name = train.name(i).split("/")
        assert train.read(i) == pictures[wnid][name]  # odd, truncated and empty ones too, unchanged
        assert WNIDS[train.labels[i]] == wnid
    top = "ILSVRC2012_img_val" if form == "named folders" else "val"
    assert listed(val) == [f"{top}/{made.val_name(k)}" for k in range(1, 11)]
    for i, (wnid, data) in enumerate(made.validation_pictures()):
        assert val.read(i) == data and WNIDS[val.labels[i]] == wnid


@needs_scipy
def test_labels_are_what_the_pictures_show(tmp_path):
    source = find_source(made.make(tmp_path, validation=25))
    val = SourceImages(source, "val", size=32)
    shown = np.stack([val.image(i).mean((0, 1)) for i in range(len(val))])
    colours = np.array([made.COLOURS[wnid] for wnid in val.classes])
    nearest = ((shown[:, None] - colours) ** 2).sum(2).argmin(1)
    assert nearest.tolist() == val.labels.tolist() and len(set(val.labels.tolist())) == 5
    loader = Loader(val, 8, CenterView(32, np.zeros((32, 32, 3), np.float32)), workers=2)
    assert sum(len(batch.labels) for batch in loader.epoch(0)) == 25
    part = SourceImages(source, "val", size=32, limit=2, classes=WNIDS[::-1])
    assert np.bincount(part.labels).tolist() == [2] * 5 and part.words == WORDS
    assert [made.COLOURS[part.classes[k]] for k in part.labels] == [
        tuple(colours[((part.image(i).mean((0, 1)) - colours) ** 2).sum(1).argmin()]) for i in range(len(part))
    ]


@needs_scipy
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_odd_files_are_read_and_broken_ones_are_named(tmp_path):
    train = SourceImages(find_source(made.make(tmp_path)), size=32)
    names = {Path(name).name: i for i, name in enumerate(train.paths)}
    for k, kind in enumerate(made.ODD):
        image = train.image(names[f"n01440764_{1000 + k}.JPEG"])
        red, green, blue = image.mean((0, 1))
        assert image.shape == (32, 32, 3) and (red == green == blue if kind == "grey" else red > 100 > green)
    for k, (kind, reason) in enumerate(made.BROKEN.items()):
        with pytest.raises(UnreadableImageError, match=f"n01443537_{1000 + k}.JPEG': .*{reason}"):
            train.image(names[f"n01443537_{1000 + k}.JPEG"])
        assert train._listing.read(names[f"n01443537_{1000 + k}.JPEG"]) == made.picture("n01443537", 150 + k, kind)


@needs_scipy
def test_what_is_missing_is_named_with_what_it_is_for(tmp_path):
    root = made.make(tmp_path / "root")
    os.rename(root / DEVKIT, tmp_path / "kit")
    with pytest.raises(DataError, match=rf"lacks {DEVKIT} \(the development kit: the labels"):
        find_source(root)
    assert find_source(root, ["train"]).classes == WNIDS  # which needs no labels
    os.rename(tmp_path / "kit", root / DEVKIT)
    os.rename(root / VAL, tmp_path / "val")
    source = find_source(root)
    assert list(source.splits) == ["train"]
    with pytest.raises(DataError, match=rf"lacks {VAL} \(the validation pictures"):
        source.split("val")
    os.rename(tmp_path / "val", root / VAL)
    os.remove(root / TRAIN)
    source = find_source(root)
    assert list(source.splits) == ["val"] and source.classes == WNIDS
    with pytest.raises(DataError, match=rf"lacks {TRAIN} \(the training pictures"):
        source.split("train")
    assert len(find_source(root / VAL, ["val"]).split("val")) == 10  # the tar's own path means its folder


def in_class_folders(root: Path, train: str, val: str) -> Path:
    """Readable pictures of the made set in class folders; training pictures and labels as their names say."""
    for top in (train, val):
        for wnid in WNIDS:
            for k in range(2):
                place = root / top / wnid / f"{wnid}_{k}.JPEG"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(made.picture(wnid, k))
    return root


def test_class_folders_in_folders_named_as_the_archives_are_no_classes(tmp_path):
    """Nor is scipy needed, or a kit."""
    root = in_class_folders(tmp_path, "ILSVRC2012_img_train", "ILSVRC2012_img_val")
    source = find_source(root)
    assert source.classes == WNIDS and source.kind == "ILSVRC2012"
    for split in ("train", "val"):
        assert len(source.split(split)) == 10 and source.split(split).labels.tolist() == sorted([0, 1, 2, 3, 4] * 2)
    assert source.split("val").name(9) == f"ILSVRC2012_img_val/{WNIDS[4]}/{WNIDS[4]}_1.JPEG"
    shutil.rmtree(root / "ILSVRC2012_img_train")
    with pytest.raises(DataError, match=f"validation pictures in class folders, and lacks {TRAIN} .* and {DEVKIT}"):
        find_source(root)


def test_a_tar_left_beside_class_folders_needs_no_kit(tmp_path):
    root = in_class_folders(tmp_path, "train", "val")
    (root / VAL).write_bytes(made.tar_of({made.val_name(1): made.picture(WNIDS[0], 0)}))
    source = find_source(root)
    assert source.split("val").name(0) == f"val/{WNIDS[0]}/{WNIDS[0]}_0.JPEG" and len(source.split("val")) == 10
    # Of flat pictures beside class folders some would be lost: the sorting of them was cut off.
    (root / "val" / made.val_name(1)).write_bytes(made.picture(WNIDS[0], 0))
    with pytest.raises(DataError, match=f"lacks {DEVKIT}"):
        find_source(root)


@needs_scipy
def test_a_class_folder_val_beside_the_official_train(tmp_path):
    root = made.make(tmp_path, **NONE)
    os.remove(root / VAL)
    for k, (wnid, data) in enumerate(made.validation_pictures()):
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (root / "val" / wnid / made.val_name(k + 1)).write_bytes(data)
    for kit in (True, False):
        if not kit:
            os.remove(root / DEVKIT)
        source = find_source(root)
        assert source.classes == WNIDS and source.words == (WORDS if kit else {})
        val = source.split("val")
        assert [val.name(i).split("/")[1] for i in range(10)] == [WNIDS[k] for k in val.labels]


def test_class_folders_alone_are_an_image_folder_s(tmp_path):
    for split in ("train", "val"):
        for wnid in WNIDS:
            (tmp_path / split / wnid).mkdir(parents=True)
            (tmp_path / split / wnid / f"{wnid}_1.JPEG").write_bytes(b"1")
    (tmp_path / "synset_words.txt").write_text("".join(f"{wnid} {words}\n" for wnid, words in WORDS.items()))
    source = find_source(tmp_path)
    assert source.kind == "class folders" and source.words == WORDS == ImageFolder(tmp_path).words


def test_a_tar_of_tars_alone_is_for_training(tmp_path):
    """All of ImageNet comes so, with 22,000 tars in it."""
    tars = {f"{wnid}.tar": made.tar_of(of) for wnid, of in made.training_pictures(2, False).items()}
    (tmp_path / "fall11_whole.tar").write_bytes(made.tar_of(tars))
    (tmp_path / "words.txt").write_text("n02012849\tcrane, a bird\n")
    source = find_source(tmp_path / "fall11_whole.tar")
    assert source.classes == WNIDS and source.words == {"n02012849": "crane, a bird"}
    assert listed(source.split("train"))[:3] == [f"train/n01440764/n01440764_{i}.JPEG" for i in (0, 1)] + [
        "train/n01443537/n01443537_0.JPEG"
    ]
    with pytest.raises(DataError, match="all for training"):
        source.split("val")


def test_the_search_of_a_tar_too_large_to_make(monkeypatch, capsys):
    """The benchmark, small: it compares every label, and names, with what it has made up."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import scan_imagenet

    scan_imagenet.main(["--classes", "30", "--pictures", "600"])
    assert "30 classes, 600 pictures, 0.00 TB. All labels and 10,000 names are right" in capsys.readouterr().out


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "name, kind, message",
    [
        ("../../evil.JPEG", tarfile.REGTYPE, "evil.JPEG' leads out"),
        ("n01443537_7.JPEG", tarfile.SYMTYPE, "n01443537_7.JPEG' is a link"),
    ],
)
def test_a_tar_inside_is_not_trusted_either(tmp_path, name, kind, message):
    inner = tmp_path / "inner.tar"
    with tarfile.open(inner, "w") as tar:
        made.put(tar, "n01443537_1.JPEG", b"1")
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    tars = {"n01440764.tar": made.tar_of({"n01440764_1.JPEG": b"1"}), "n01443537.tar": inner.read_bytes()}
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / TRAIN).write_bytes(made.tar_of(tars))
    with pytest.raises(DataError, match=message) as error:
        find_source(tmp_path / "root")
    assert "n01443537.tar in '" in str(error.value) and TRAIN in str(error.value)


def test_a_tar_inside_that_was_cut_off_says_where(tmp_path):
    whole = made.tar_of({f"n01440764_{i}.JPEG": b"x" * 600 for i in range(20)})
    for length in (len(whole) // 1536 * 768, 512, 0):
        (tmp_path / TRAIN).write_bytes(made.tar_of({"n01440764.tar": whole[:length], "n01443537.tar": whole}))
        with pytest.raises(DataError, match=r"n01440764\.tar in '.*no whole tar: .* at or after byte"):
            find_source(tmp_path)
    (tmp_path / TRAIN).write_bytes(made.tar_of({"n01440764.tar": whole, "n01443537.tar": whole})[:-20000])
    with pytest.raises(DataError, match=rf"{TRAIN}': no whole tar"):
        find_source(tmp_path)


def test_classes_that_are_there_twice_or_empty(tmp_path):
    one = made.tar_of({"n01440764_1.JPEG": b"1"})
    with tarfile.open(tmp_path / TRAIN, "w") as tar:
        for name in ("n01440764.tar", "n01443537.tar", "n01440764.tar"):
            made.put(tar, name, one)
    with pytest.raises(DataError, match="n01440764.tar twice"):
        find_source(tmp_path)
    (tmp_path / TRAIN).write_bytes(made.tar_of({"n01440764.tar": one, "n01443537.tar": made.tar_of({"x.txt": b"1"})}))
    with pytest.raises(DataError, match="1 of 2 classes have no picture"), pytest.warns(UserWarning, match="x.txt"):
        find_source(tmp_path)
    with tarfile.open(tmp_path / "n.tar", "w") as tar:
        for _ in range(2):
            made.put(tar, "n01440764_1.JPEG", b"1")
    (tmp_path / TRAIN).write_bytes(made.tar_of({"n01440764.tar": (tmp_path / "n.tar").read_bytes(), "x.txt": b"1"}))
    with pytest.raises(DataError, match="more than once"), pytest.warns(UserWarning, match="no class's tar: x.txt"):
        find_source(tmp_path)


@needs_scipy
def test_what_was_not_unpacked_to_the_end_is_refused(tmp_path):
    root = in_form(made.make(tmp_path / "a"), "tars")
    unpacked(root / "train" / WNIDS[0], root / "train" / f"{WNIDS[0]}.tar")
    with pytest.raises(DataError, match="not unpacked to the end"):
        find_source(root)
    root = in_form(made.make(tmp_path / "b"), "class folders")
    shutil.rmtree(root / "train" / WNIDS[2])
    with pytest.raises(DataError, match=rf"1 of 5 are not among the training pictures \({WNIDS[2]}\)"):
        find_source(root)
    assert find_source(root, ["val"]).classes == WNIDS  # whose labels need no training pictures
    root = in_form(made.make(tmp_path / "c"), "class folders")
    os.remove(root / "val" / made.val_name(3))
    with pytest.raises(DataError, match=r"holds 9: 1 are not there \(numbers 3\)"):
        find_source(root)
    (root / "val" / made.val_name(3)).write_bytes(b"")
    (root / "val" / made.val_name(11)).write_bytes(b"")
    with pytest.raises(DataError, match=r"1 have no label \(numbers 11\)"):
        find_source(root)
    os.remove(root / "val" / made.val_name(11))
    (root / "val" / "other.JPEG").write_bytes(b"")
    with pytest.warns(UserWarning, match="no label belongs to their names: other.JPEG"):
        assert len(find_source(root).split("val")) == 10


def kit_of(root: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(root / DEVKIT, "w:gz") as tar:
        for name, content in files.items():
            made.put(tar, name, content)


@needs_scipy
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "truth, meta, message",
    [
        ([1, 2, 9], None, "must be the IDs 1..5"), ([0, 1, 2], None, "must be the IDs 1..5"),
        ([], None, "must be the IDs"), ([1, 2, 3], b"no mat file", "cannot be read"),
        ([1, 2, 3], b"", "cannot be read"), (["x"], None, "cannot be read"),
        ([1, 2, 3], None, "holds 10"), ([1] * 11, None, "holds 10"),
    ],
)  # fmt: skip
def test_a_kit_that_cannot_be_right_is_refused(tmp_path, truth, meta, message, packed):
    root = made.make(tmp_path)
    files = made.devkit([n for n in truth if n != "x"], meta)
    if truth == ["x"]:
        files["ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"] = b"one\n"
    kit_of(root, files)
    if not packed:
        unpacked(root, root / DEVKIT)
        os.remove(root / DEVKIT)
    with pytest.raises(DataError, match=message) as error:
        find_source(root)
    assert "devkit" in str(error.value) and str(error.value).isprintable()


@needs_scipy
def test_a_kit_without_its_files_or_cut_off_is_refused(tmp_path):
    root = made.make(tmp_path)
    whole = (root / DEVKIT).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 400):
        (root / DEVKIT).write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{DEVKIT}' (cannot be read|lacks)"):
            find_source(root)
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        kit_of(root, {path: data for path, data in made.devkit([1] * 10).items() if not path.endswith(name)})
        with pytest.raises(DataError, match=f"lacks data/{name}"):
            find_source(root)


def test_scipy_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    (tmp_path / VAL).write_bytes(made.tar_of({made.val_name(1): b"1"}))
    kit_of(tmp_path, made.devkit([1], b"meta"))
    with pytest.raises(MissingDependencyError, match=r"pip install 'minigrad\[imagenet\]'"):
        find_source(tmp_path)
