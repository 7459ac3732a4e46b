"""find_source: class folders, Tiny ImageNet, tars and zips; what is listed, what is read, what is refused."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_ilsvrc import WNIDS, picture, put, tar_of

from minigrad.data import (
    ImageFolder,
    SourceImages,
    UnreadableImageError,
    find_source,
    open_images,
    prepare_bytes,
    prepare_image,
)
from minigrad.data.archives import Passed, tar_members
from minigrad.data.listing import Found
from minigrad.data.sources import in_class_folders
from minigrad.errors import ArgumentError, DataError

FILES = (  # in ImageFolder's order: the files of a folder before what lies in its folders
    "train/cat/9.jpg", "train/cat/z.jpg", "train/cat/a/1.jpg", "train/cat/a/2.JPEG", "train/cat/a/x/1.png",
    "train/cat/a-b/1.jpg", "train/dög/10.jpg", "train/dög/9.jpg", "val/dög/1.jpg",
)  # fmt: skip
PASSED = (
    "train/cat/.hidden.jpg",
    "train/cat/__MACOSX/1.jpg",
    "train/beside.jpg",
    "train/cat/notes.doc",
    "train/.DS_Store",
)


def contents(names=FILES):
    return {name: picture(WNIDS[k % 5], k) for k, name in enumerate(names)}


def unpack(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zip_of(files: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as packed:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.extra = b"UT\5\0\1abcd"  # what the zip command writes of a file's time
            packed.writestr(member, data, method)
    return content.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def listed(listing):
    return [listing.name(i) for i in range(len(listing))]


def below(top: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {top + name: data for name, data in files.items()}


def shuffled(files: dict[str, bytes]) -> dict[str, bytes]:
    return dict(random.Random(3).sample(list(files.items()), len(files)))


# ---------------------------------------------------------------- the same pictures, however they are packed


@pytest.mark.parametrize("form", ["folder", "tar", "tar in a folder", "tar ./", "zip", "stored zip", "pax", "gnu"])
def test_every_form_lists_what_an_image_folder_does(tmp_path, form):
    files = contents()
    root = unpack(tmp_path / "root", files)
    if form == "folder":
        path = root
    elif "zip" in form:
        method = zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
        path = write(tmp_path / "a.zip", zip_of(below("the set/", shuffled(files)), method))
    else:
        top = {"tar in a folder": "the set/more/", "tar ./": "./"}.get(form, "")
        path, kind = tmp_path / "a.tar", tarfile.PAX_FORMAT if form == "pax" else tarfile.GNU_FORMAT
        with tarfile.open(path, "w", format=kind) as tar:
            for name, data in shuffled(
                below(top or ("x" * 150 + "/" if form in ("pax", "gnu") else ""), files)
            ).items():
                put(tar, name, data)
    source = find_source(path)
    assert source.classes == ("cat", "dög") and list(source.splits) == ["train", "val"] and not source.missing
    for split, listing in source.splits.items():
        folder = ImageFolder(root, split)
        assert listed(listing) == [f"{split}/{os.path.relpath(p, folder.folder)}" for p in folder.paths]
        assert listed(listing) == [name for name in FILES if name.startswith(split)]
        assert listing.labels.tolist() == folder.labels.tolist() and listing.labels.dtype == np.int32
        assert [listing.read(i) for i in range(len(listing))] == [files[name] for name in listed(listing)]


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_what_does_not_count_is_passed_over_and_told(tmp_path, form):
    files = contents((*FILES, *PASSED))
    path = unpack(tmp_path / "set", files) if form == "folder" else tmp_path / form
    if form != "folder":
        path.write_bytes(tar_of(files) if form == "tar" else zip_of(files))
    with pytest.warns(UserWarning) as told:
        source = find_source(path)
    assert listed(source.splits["train"]) == [name for name in FILES if name.startswith("train")]
    text = " ".join(str(warning.message) for warning in told)
    for name in ("hidden", "beside.jpg", "notes.doc", "__MACOSX"):
        assert name in text
    assert "DS_Store" not in text


def test_classes_that_weights_gave_are_not_the_sets_to_rename(tmp_path):
    source = find_source(unpack(tmp_path / "set", contents()))
    with pytest.raises(
        DataError, match=r"'val' of .*/set' must be one .* not: dög. The classes were given .*other data"
    ):
        SourceImages(source, "val", classes=("cat", "cow"))
    with pytest.raises(ArgumentError, match="SourceImages: the names in classes must differ"):
        SourceImages(source, "val", classes=("cat", "cat"))
    images = SourceImages(source, "val", classes=("cow", "dög"))
    assert images.labels.tolist() == [1] and images.classes == ("cow", "dög")


def test_of_many_that_do_not_count_five_are_named(tmp_path):
    path = write(tmp_path / "a.tar", tar_of({"cat/1.jpg": b"1", **{f"cat/{k}.txt": b"" for k in range(40)}}))
    with pytest.warns(UserWarning, match="40 files passed over .*: cat/0.txt, .*, cat/4.txt and 35 more"):
        find_source(path)
    passed = Passed("it")
    for k in range(40):
        passed.add("why", str(k))
    assert [len(names) for _, names in passed._kinds.values()] == [5]


def test_class_folders_without_splits_are_for_training(tmp_path):
    files = {"cat/1.jpg": b"1", "dog/1.jpg": b"2", "dog/2.jpg": b"3"}
    paths = (
        unpack(tmp_path / "set", files),
        write(tmp_path / "a.tar", tar_of(files)),
        write(tmp_path / "b.tar", tar_of(below("top/", files))),
    )
    one = find_source(write(tmp_path / "c.tar", tar_of({"top/cat/1.jpg": b"1"})))
    assert one.classes == ("cat",) and one.split("train").name(0) == "cat/1.jpg"
    for path in paths:
        source = find_source(path)
        assert listed(source.splits["train"]) == list(files) and source.splits["train"].labels.tolist() == [0, 1, 1]
        with pytest.raises(DataError, match="has no split 'val'"):
            source.split("val")


@pytest.mark.parametrize(
    "around",
    ["imagenette2/train/cat/1.jpg", "CLS/LOC/train/cat/1.jpg", "x/val/ILSVRC2012_val_00000001.JPEG",
     "x/ILSVRC2012_img_train.tar"],
)  # fmt: skip
def test_a_folder_one_or_two_levels_too_high_is_refused_with_the_one_to_give(tmp_path, around):
    root = unpack(tmp_path / "set", {around: b"1", "about/texts/1.jpg": b"2"})
    inside = root / "CLS" / "LOC" if around.startswith("CLS") else root / around.split("/")[0]
    with pytest.raises(DataError, match=f"has no train/ in it, but '{inside}' has the pictures .*: give that folder"):
        find_source(root)


def test_a_split_given_in_place_of_its_dataset_is_refused(tmp_path, monkeypatch):
    root = unpack(tmp_path / "set", {"train/cat/1.jpg": b"1", "val/cat/1.jpg": b"2"})
    for name in ("train", "val"):
        with pytest.raises(DataError, match=f"looks like a split itself: pass its parent, '{root}'"):
            find_source(root / name)
    monkeypatch.chdir(root / "train")
    with pytest.raises(DataError, match="looks like a split itself"):
        find_source(".")


def test_class_folders_may_hold_folders_of_any_name(tmp_path):
    """A picture of a locomotive in vehicles/train/ makes no dataset of it."""
    root = unpack(tmp_path / "set", {"animals/1.jpg": b"1", "vehicles/train/1.jpg": b"2"})
    assert listed(find_source(root).splits["train"]) == ["animals/1.jpg", "vehicles/train/1.jpg"]


def test_test_stands_in_for_val_and_keeps_its_name(tmp_path):
    files = {"train/cat/1.jpg": b"1", "test/cat/1.jpg": b"2"}
    for path in (unpack(tmp_path / "set", files), write(tmp_path / "a.tar", tar_of(files))):
        val = find_source(path, ["val"])
        assert list(val.splits) == ["val"] and listed(val.splits["val"]) == ["test/cat/1.jpg"]


def test_missing_and_misnamed_folders_are_told(tmp_path):
    only = unpack(tmp_path / "set", {"train/cat/1.jpg": b"1"})
    source = find_source(only)
    assert "val/ or test/" in source.missing["val"]
    with pytest.raises(DataError, match="looked for val/ or test/"):
        source.split("val")
    for files in ({"training/cat/1.jpg": b"1", "validation/cat/1.jpg": b"1"}, {"val/cat/1.jpg": b"1"}):
        for path in (unpack(tmp_path / f"bad{len(files)}", files), write(tmp_path / "a.tar", tar_of(files))):
            with pytest.raises(DataError, match="looked for train/"):
                find_source(path)
    for path, message in (
        (tmp_path / "no.tar", "^'.*no.tar' should be a folder or an archive of pictures, but it does not exist"),
        (f"{tmp_path}/a\0b", "character 0"),
        (unpack(tmp_path / "empty", {"x.txt": b""}), "found 1 files"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            find_source(path)
    with pytest.raises(ArgumentError, match="splits"):
        find_source(only, ["test"])
    with pytest.raises(ArgumentError, match="split"):
        SourceImages(source, "test")


def test_errors_begin_with_what_was_given(tmp_path, monkeypatch):
    """Who gives a path to the main job has never heard of ImageFolder."""
    monkeypatch.chdir(tmp_path)
    picture = {"train/cat/1.jpg": b"1"}
    broken = {
        "nothing": {},
        "misnamed": {"training/cat/1.jpg": b"1"},
        "no classes": {"train/1.jpg": b"1"},
        "no pictures": {"train/cat/1.txt": b"1"},
        "other classes": {**picture, "val/dog/1.jpg": b"1"},
        "lost": picture,
    }
    for name, files in broken.items():
        Path(name).mkdir()
        unpack(tmp_path / name, files)
    (tmp_path / "lost" / "train" / "dog").symlink_to("nowhere")
    for name in (*broken, "absent"):
        split = "val" if name == "other classes" else "train"
        for opened in lambda name, split: open_images(name, split), lambda name, split: find_source(name, [split]):
            with pytest.raises(DataError) as error:
                opened(name, split)
            assert str(error.value).startswith((f"'{name}", f"'{tmp_path / name}")), error.value
            assert "ImageFolder" not in str(error.value)
        with pytest.raises(DataError, match="^ImageFolder: "):
            ImageFolder(name, split)


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_classes_of_val_that_train_lacks_are_refused(tmp_path, form):
    files = {"train/cat/1.jpg": b"1", "val/cow/1.jpg": b"2"}
    path = unpack(tmp_path / "set", files) if form == "folder" else tmp_path / form
    if form != "folder":
        path.write_bytes(tar_of(files) if form == "tar" else zip_of(files))
    with pytest.raises(DataError, match="are not: cow"):
        find_source(path)


# ---------------------------------------------------------------- Tiny ImageNet

LINES = b"val_0.JPEG\tn01443537\t0\t32\t44\t62\nval_10.JPEG\tn01440764\t1\t2\t3\t4\nval_2.JPEG\tn01443537\t0\t0\t1\t1\n"


def tiny(lines: bytes = LINES) -> dict[str, bytes]:
    files = {f"train/{w}/images/{w}_{i}.JPEG": picture(w, i, side=64) for w in WNIDS[:2] for i in (0, 1)}
    files |= {f"train/{w}/{w}_boxes.txt": b"boxes" for w in WNIDS[:2]}
    files |= {f"val/images/val_{i}.JPEG": picture(w, i) for i, w in ((0, WNIDS[1]), (2, WNIDS[1]), (10, WNIDS[0]))}
    files |= {"test/images/test_0.JPEG": b"", "val/val_annotations.txt": lines, "wnids.txt": b"n01443537\nn01440764\n"}
    return files | {"words.txt": b"n00001740\tentity\nn01440764\ttench, Tinca tinca\nn01443537\tgoldfish\n"}


@pytest.mark.filterwarnings("ignore:.*passed over for their endings")
@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_tiny_imagenet_as_it_comes(tmp_path, form):
    files = below("tiny-imagenet-200/", tiny())
    path = unpack(tmp_path, files) / "tiny-imagenet-200" if form == "folder" else tmp_path / "t.zip"
    if form != "folder":
        path.write_bytes(tar_of(files) if form == "tar" else zip_of(files))
    source = find_source(path)
    assert source.kind == "Tiny ImageNet" and source.classes == WNIDS[:2]
    assert source.words == {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}
    assert listed(source.splits["val"]) == [f"val/images/val_{i}.JPEG" for i in (0, 10, 2)]
    assert source.splits["val"].labels.tolist() == [1, 0, 1]
    train = source.splits["train"]
    assert listed(train) == [f"train/{w}/images/{w}_{i}.JPEG" for w in WNIDS[:2] for i in (0, 1)]
    val = SourceImages(source, "val", size=8)
    assert [int(val.image(i).mean((0, 1)).argmax()) for i in range(3)] == [1, 0, 1]  # green is the goldfish


def test_tiny_imagenet_s_val_in_class_folders(tmp_path):
    """As many scripts rearrange it; the annotations are left where they were."""
    files = {f"val/{WNIDS[k]}/images/val_{i}.JPEG": b"1" for i, k in ((0, 1), (2, 1), (10, 0))}
    files |= {
        name: data for name, data in tiny().items() if not name.startswith("val/images/") and "_boxes" not in name
    }
    for path in (unpack(tmp_path / "set", files), write(tmp_path / "a.tar", tar_of(files))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            val = find_source(path).split("val")
        assert val.labels.tolist() == [0, 1, 1] and val.name(0) == f"val/{WNIDS[0]}/images/val_10.JPEG"


def test_which_dataset_is_for_what_lies_there(tmp_path):
    assert in_class_folders(unpack(tmp_path / "set", contents())) and in_class_folders(tmp_path / "nothing")
    assert in_class_folders("a\0b")
    assert not in_class_folders(write(tmp_path / "a.tar", tar_of(contents())))
    assert not in_class_folders(unpack(tmp_path / "tiny", tiny()))
    assert not in_class_folders(unpack(tmp_path / "flat", {"val/ILSVRC2012_val_00000001.JPEG": b""}))


@pytest.mark.filterwarnings("ignore:.*passed over for their endings")
@pytest.mark.parametrize(
    "lines, message",
    [
        (LINES.replace(b"val_2.JPEG", b"val_3.JPEG"), "2 are in one only"),
        (LINES[: LINES.index(b"val_2")], "1 are in one only"),
        (LINES + LINES, "once for each picture"),
        (LINES.replace(b"\t", b" "), "a tab and its class"),
        (LINES.replace(b"n01440764", b"n99999999"), "are not: n99999999"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tmp_path, lines, message):
    for path in (unpack(tmp_path / "set", tiny(lines)), write(tmp_path / "a.zip", zip_of(tiny(lines)))):
        with pytest.raises(DataError, match=message):
            find_source(path)


# ---------------------------------------------------------------- archives that are not to be trusted


def hostile(name: str, kind: bytes, link: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        put(tar, "train/cat/1.jpg", b"1")
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        tar.addfile(member)
    return content.getvalue()


HOSTILE = [
    ("../../evil.jpg", tarfile.REGTYPE, "evil.jpg' leads out"), ("/etc/evil.jpg", tarfile.REGTYPE, "leads out"),
    ("train/cat/../../../evil.jpg", tarfile.REGTYPE, "evil.jpg' leads out"), ("../x", tarfile.DIRTYPE, "leads out"),
    ("C:/evil.jpg", tarfile.REGTYPE, "leads out"), ("train/cat/l.jpg", tarfile.SYMTYPE, "l.jpg' is a link to '/etc"),
    ("train/cat/l.jpg", tarfile.LNKTYPE, "l.jpg' is a link"), ("train/cat/p.jpg", tarfile.FIFOTYPE, "is a pipe"),
    ("train/cat/d.jpg", tarfile.CHRTYPE, "is a device"), ("train/cat/d.jpg", tarfile.BLKTYPE, "is a device"),
    ("train/cat/s.jpg", tarfile.GNUTYPE_SPARSE, "is a sparse"), ("train/\x1b[2J.jpg", tarfile.SYMTYPE, r"\\x1b\[2J"),
]  # fmt: skip


@pytest.mark.parametrize("name, kind, message", HOSTILE)
def test_a_tar_that_is_not_to_be_trusted_is_refused_by_name(tmp_path, name, kind, message):
    path = write(
        tmp_path / "a.tar", hostile(name, kind, "/etc/passwd" if kind == tarfile.SYMTYPE else "train/cat/1.jpg")
    )
    with pytest.raises(DataError, match=message) as error:
        find_source(path)
    assert "a.tar" in str(error.value) and str(error.value).isprintable()


def test_a_zip_that_is_not_to_be_trusted_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", zip_of({"train/cat/1.jpg": b"1", "../../evil.jpg": b"2"}))
    with pytest.raises(DataError, match="evil.jpg' leads out"):
        find_source(path)
    link = zipfile.ZipInfo("train/cat/l.jpg")
    link.external_attr = 0o120777 << 16
    for info, method, message in ((link, 0, "l.jpg' is lrwx"), (zipfile.ZipInfo("train/cat/b.jpg"), 12, "method 12")):
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr(info, b"x", method)
        with pytest.raises(DataError, match=message):
            find_source(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    for twice in (FILES[0], "./" + FILES[0]):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in (*FILES, twice):
                put(tar, name, b"x")
        with pytest.raises(DataError, match=r"1 pictures more than once, by their names \(9.jpg\)"):
            find_source(tmp_path / "a.tar")


def test_a_tar_that_was_cut_off_is_never_taken_for_a_whole_one(tmp_path):
    whole = tar_of({name: data[:700] for name, data in contents().items()})
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # the zeros begin here
    for length in [*range(1, end + 1, 101), *range(512, end + 1, 512)]:
        with pytest.raises(DataError, match="no whole tar|holds no picture"):
            find_source(write(tmp_path / "a.tar", whole[:length]))
    with pytest.raises(DataError, match=rf"at or after byte {end:,} of {end:,}"):
        find_source(write(tmp_path / "a.tar", whole[:end]))
    assert len(find_source(write(tmp_path / "a.tar", whole[: end + 512])).splits["train"]) == 8
    for length in range(100, 3000, 307):
        packed = zip_of(contents())
        with pytest.raises(DataError):
            find_source(write(tmp_path / "a.zip", packed[:-length]))


def test_a_damaged_header_does_not_end_the_list(tmp_path):
    """tarfile takes a header whose checksum is wrong for the end: all pictures behind it would be lost silently."""
    whole = tar_of({f"train/cat/{k}.jpg": b"x" * 600 for k in range(9)})
    for k in range(9):
        damaged = bytearray(whole)
        damaged[k * 1536 + 5] ^= 1
        with pytest.raises(DataError, match=f"no whole tar.* at or after byte {k * 1536:,} of"):
            find_source(write(tmp_path / "a.tar", bytes(damaged)))
    with pytest.raises(DataError, match="no header, and not its end"):
        find_source(write(tmp_path / "a.tar", whole + whole))  # cat a.tar b.tar


@pytest.mark.filterwarnings("ignore:.*passed over")
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_random_damage_is_an_error_or_changes_no_list(tmp_path, form):
    files = {name: b"x" * 600 for name in FILES}
    whole = tar_of(files) if form == "tar" else zip_of(files, zipfile.ZIP_STORED)
    names = set(FILES)
    rng, refused = random.Random(1), 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 8))):
            damaged[rng.randrange(len(whole) - (10240 - 2048 if form == "tar" else 0))] = rng.randrange(256)
        path = write(tmp_path / "a", bytes(damaged))
        try:
            source = find_source(path)
        except DataError as error:
            refused += 1
            assert str(error).isprintable()
            continue
        found = {name for listing in source.splits.values() for name in listed(listing)}
        assert form == "zip" or found == names  # a zip has no checksum over its index, but over each picture
        for listing in source.splits.values():
            for i in range(len(listing)):
                try:
                    content = listing.read(i)
                    assert form == "tar" or content == b"x" * 600
                except UnreadableImageError:
                    assert form == "zip"
    assert refused > 3


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
        member.type, member.size = kind, 3 << 30
        path = tmp_path / "a.tar"
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, 4 << 30)  # a sparse file
        with pytest.raises(DataError, match="bytes"):
            find_source(path)
    member.type, member.size, member.name = tarfile.REGTYPE, 5 << 30, "train/cat/1.jpg"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, (5 << 30) + 2048)
    with pytest.raises(UnreadableImageError, match="a file of 4,095 MiB, more than the 512"):
        find_source(path).splits["train"].read(0)
    for size in (-1, -512, -1024, -(2**40)):
        lying = bytearray(tarfile.TarInfo("train/cat/1.jpg").tobuf(tarfile.GNU_FORMAT))
        lying[124:136] = (2**96 + size).to_bytes(12, "big")
        lying[148:156] = b" " * 8
        lying[148:156] = b"%06o\0 " % sum(lying)
        with pytest.raises(DataError, match="no whole tar"):
            find_source(write(path, tar_of({"train/cat/0.jpg": b""})[:512] + bytes(lying) + bytes(4096)))
    for size in ("-1", "-1024"):
        back = tarfile.TarInfo("train/cat/1.jpg")
        back.pax_headers = {"size": size}
        with pytest.raises(DataError, match="no whole tar"):
            find_source(write(path, back.tobuf(tarfile.PAX_FORMAT) + bytes(4096)))
    chain = tarfile.TarInfo("x")
    chain.type = tarfile.XHDTYPE
    with pytest.raises(DataError, match="no whole tar"):
        find_source(write(path, chain.tobuf(tarfile.GNU_FORMAT) * 5000))  # each header announces another


@pytest.mark.parametrize(
    "pack, command", [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")]
)
def test_a_compressed_tar_is_refused_with_the_command_that_helps(tmp_path, pack, command):
    path = write(tmp_path / "a b.tar.z", pack(tar_of(contents())))
    with pytest.raises(DataError, match=f"{command} -k '{path}', and .* all of it by tar xf '{path}'"):
        find_source(path)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_pictures_come_unchanged_to_threads_and_after_a_fork(tmp_path, form):
    files = {f"train/cat/{i:03}.jpg": os.urandom(5000 + i) for i in range(60)}
    path = unpack(tmp_path / "set", files) if form == "folder" else tmp_path / form
    if form != "folder":
        path.write_bytes(tar_of(files) if form == "tar" else zip_of(files))
    listing, wanted = find_source(path).splits["train"], list(files.values())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(listing.read, [*range(60)] * 4)) == wanted * 4
    again = pickle.loads(pickle.dumps(listing))  # for processes that are not forked
    if sys.platform == "win32":
        return
    children = []
    for k in range(3):
        child = os.fork()
        if child == 0:
            right = all(listing.read((i * 7 + k) % 60) == wanted[(i * 7 + k) % 60] for i in range(60))
            os._exit(0 if right else 1)
        children.append(child)
    assert [listing.read(i) for i in range(60)] == wanted == [again.read(i) for i in range(60)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_what_cannot_be_had_is_named_with_the_reason(tmp_path, form):
    files = {"train/cat/1.jpg": picture(WNIDS[0], 1), "train/cat/2.jpg": b""}
    path = unpack(tmp_path / "set", files) if form == "folder" else tmp_path / form
    if form != "folder":
        path.write_bytes(tar_of(files) if form == "tar" else zip_of(files))
    source = find_source(path)
    listing, images = source.splits["train"], SourceImages(source)
    with pytest.raises(UnreadableImageError, match="it is empty") as error:
        images.image(1)
    assert error.value.path == "train/cat/2.jpg"
    place = path / "train" / "cat" / "1.jpg" if form == "folder" else path
    os.remove(place)
    with pytest.raises(UnreadableImageError, match="No such file") as error:
        listing.read(0)
    assert error.value.path == "train/cat/1.jpg"
    os.mkfifo(place)
    with pytest.raises(UnreadableImageError, match="pipe"):  # and it does not wait for a writer
        listing.read(0)


def test_pictures_are_read_from_another_folder_too(tmp_path, monkeypatch):
    files = contents()
    unpack(tmp_path / "set", files)
    write(tmp_path / "a.tar", tar_of(files))
    monkeypatch.chdir(tmp_path)
    listings = [find_source(path).splits["train"] for path in ("set", "a.tar")]
    monkeypatch.chdir("/")
    assert [listing.read(0) for listing in listings] == [files[FILES[0]]] * 2


def test_an_archive_that_has_changed_is_not_read(tmp_path):
    path = write(tmp_path / "a.tar", tar_of(contents()))
    listing = find_source(path).splits["train"]
    write(path, tar_of({"x": b"x", **contents()}) + bytes(1024))
    with pytest.raises(UnreadableImageError, match="changed since .* Look at the file"):
        listing.read(0)


def test_a_zip_whose_bytes_were_damaged_is_told(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = bytearray(zip_of({"train/cat/1.jpg": bytes(range(256)) * 20}, method))
        packed[80] ^= 0x55
        with pytest.raises(UnreadableImageError, match="damaged|cut off"):
            find_source(write(tmp_path / "a.zip", bytes(packed))).splits["train"].read(0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_bytes_are_prepared_as_files_are(tmp_path):
    for kind in ("", "png", "cmyk", "grey", "exif"):
        data = picture(WNIDS[1], 3, kind, side=90)
        path = write(tmp_path / "x.JPEG", data)
        assert np.array_equal(prepare_bytes(data, "x", 32), prepare_image(path, 32))
        assert np.array_equal(prepare_bytes(data, "x", 16, draft=False), prepare_image(path, 16, draft=False))
    for kind in ("truncated", "empty"):
        data = picture(WNIDS[1], 3, kind)
        with pytest.raises(UnreadableImageError) as error:
            prepare_bytes(data, "a/\x1b.JPEG")
        with pytest.raises(UnreadableImageError) as same:
            prepare_image(write(tmp_path / "x.JPEG", data))
        assert error.value.reason == same.value.reason and "\\x1b" in str(error.value)
    with pytest.raises(ArgumentError):
        prepare_bytes(b"", "x", 0)


# ---------------------------------------------------------------- a dataset of it


def test_limit_and_classes_are_an_image_folder_s(tmp_path):
    names = [f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("cat", "cow", "dog") for i in range(9)]
    root = unpack(tmp_path / "set", contents(names))
    source = find_source(write(tmp_path / "a.tar", tar_of(shuffled(contents(names)))))
    for options in ({}, {"limit": 4, "seed": 3}, {"classes": ["emu", "dog", "cow", "cat"], "limit": 2}):
        for split in ("train", "val"):
            ours, theirs = SourceImages(source, split, size=8, **options), ImageFolder(root, split, size=8, **options)
            assert ours.classes == theirs.classes and len(ours) == len(theirs)
            assert dict(zip(ours.paths, ours.labels)) == {
                f"{split}/{os.path.relpath(p, theirs.folder)}": k for p, k in zip(theirs.paths, theirs.labels)
            }
            assert ours.labels.dtype == np.int64
            assert np.array_equal(ours.image(5), theirs.image(5))
    assert ours.paths[-1] == "val/dog/" + os.path.basename(theirs.paths[-1]) and len(ours.paths[1:3]) == 2
    with pytest.raises(IndexError):
        ours.paths[len(ours)]
    with pytest.raises(DataError, match="are not: dog"):
        SourceImages(source, classes=["cat", "cow"])
    with pytest.raises(ArgumentError, match="must differ"):
        SourceImages(source, classes=["cat", "cow", "dog", "cat"])
    for bad in ({"size": 0}, {"limit": 0}, {"seed": -1}):
        with pytest.raises(ArgumentError):
            SourceImages(source, **bad)


def test_an_archive_is_searched_once_for_both_splits_and_anew_when_it_changes(tmp_path):
    path, told = write(tmp_path / "a.tar", tar_of(contents())), []
    train, val = (
        open_images(path, split, size=8, progress=lambda *now: told.append(now)) for split in ("train", "val")
    )
    assert told == [("a.tar", path.stat().st_size, path.stat().st_size)]  # the end of one search
    assert len(train) == 8 and list(val.paths) == ["val/dög/1.jpg"] and val.image(0).shape == (8, 8, 3)
    write(path, tar_of(contents((*FILES, "val/cat/5.jpg"))))
    val = open_images(path, "val", size=8, progress=lambda *now: told.append(now))
    assert list(val.paths) == ["val/cat/5.jpg", "val/dög/1.jpg"] and len(told) == 2
    folder = unpack(tmp_path / "tiny", {"train/n1/images/1.jpg": b"1", "val/images/1.jpg": b"2",
                                        "val/val_annotations.txt": b"1.jpg\tn1\t0\t0\t1\t1\n"})  # fmt: skip
    open_images(folder, "train", progress=lambda *now: told.append(now))
    assert told[2:] == [("train/", 1, 1)]


def test_progress_ends_at_the_whole(tmp_path):
    told = []
    root = unpack(tmp_path / "set", contents())
    find_source(root, progress=lambda *now: told.append(now))
    assert told == [("train/", 1, 2), ("train/", 2, 2), ("val/", 1, 1)]
    path = write(tmp_path / "a.tar", tar_of(contents()))
    find_source(path, progress=lambda *now: told.append(now))
    assert told[-1] == ("a.tar", path.stat().st_size, path.stat().st_size)


@pytest.mark.skipif(not os.path.exists("/bin/tar") and not os.path.exists("/usr/bin/tar"), reason="needs tar")
@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_what_the_tar_command_makes_is_read(tmp_path, form):
    files = contents()
    unpack(tmp_path / "set", files)
    subprocess.run(["tar", f"--format={form}", "-cf", tmp_path / "a.tar", "set"], cwd=tmp_path, check=True)
    train = find_source(tmp_path / "a.tar").splits["train"]
    assert listed(train) == [name for name in FILES if name.startswith("train")]
    assert [train.read(i) for i in range(len(train))] == [files[name] for name in listed(train)]


def test_a_search_forgets_what_it_has_passed():
    """tarfile keeps every member it has seen, more than a kilobyte each."""
    content = tar_of({f"train/cat/{k}.jpg": b"" for k in range(1000)})
    tracemalloc.start()
    try:
        count = sum(1 for _ in tar_members(lambda at, n: content[at : at + n], 0, len(content), "it"))
        assert count == 1000 and tracemalloc.get_traced_memory()[1] < 150_000
    finally:
        tracemalloc.stop()


def test_a_listing_takes_few_bytes_for_a_picture():
    """15 million pictures: what is held of each is its name and 28 bytes, and 4 for the label."""
    found = Found("qI")
    for k in range(2000):
        found.add(f"train/n{k % 20:08}", f"n{k % 20:08}_{k}.JPEG", k * 1000, 900)
    names, folder, numbers = found.taken(found.in_order(np.arange(2000, dtype=np.int32) % 20, "x"))
    held = names._ends.itemsize + names._chosen.itemsize + folder.itemsize + sum(n.itemsize for n in numbers)
    assert held == 28 and len(names._content) == sum(len(name) for name in names)
