"""The embedded demo set: layout, determinism, caching, and care with the user's files."""

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigrad.data import demo_set
from minigrad.data.demo_set import CLASSES, make_demo_set, render
from minigrad.errors import DataError

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import linear_baseline  # noqa: E402


def contents(root):
    """Every file under `root`: relative path -> bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return make_demo_set(tmp_path_factory.mktemp("demo") / "set", train_per_class=3, val_per_class=2)


def test_layout_is_that_of_ilsvrc(small_set):
    for split, count in (("train", 3), ("val", 2)):
        assert sorted(path.name for path in (small_set / split).iterdir()) == sorted(CLASSES)
        for name in CLASSES:
            assert [path.name for path in sorted((small_set / split / name).iterdir())] == [
                f"{name}_{index:05d}.JPEG" for index in range(count)
            ]
    assert len(CLASSES) == 10 and list(CLASSES) == sorted(CLASSES)  # so labels agree with sorted folder names


def test_files_are_rgb_jpegs_of_varied_size_and_aspect(small_set):
    sizes = []
    for path in small_set.rglob("*.JPEG"):
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and picture.mode == "RGB"
            sizes.append(picture.size)
    short = np.min(sizes, axis=1)
    assert short.min() >= 180 and short.max() <= 320 and np.ptp(short) > 80
    aspects = np.array([width / height for width, height in sizes])
    assert aspects.max() > 1.25 and aspects.min() < 0.8 and aspects.max() <= 1.51


@pytest.mark.parametrize("name", CLASSES)
def test_pictures_are_neither_blank_nor_alike(name):
    first, second = (np.asarray(render(name, np.random.default_rng(seed)).resize((64, 64))) for seed in (1, 2))
    assert first.std() > 5 and second.std() > 5
    assert np.abs(first.astype(float) - second).mean() > 10


def test_same_seed_same_bytes(small_set, tmp_path):
    again = make_demo_set(tmp_path / "again", train_per_class=3, val_per_class=2)
    assert contents(again) == contents(small_set)


def test_picture_does_not_depend_on_how_many_there_are(small_set, tmp_path):
    fewer = contents(make_demo_set(tmp_path / "fewer", train_per_class=1, val_per_class=2))
    del fewer[demo_set.RECORD]
    assert fewer.items() <= contents(small_set).items()


def test_seeds_splits_and_pictures_differ(small_set, tmp_path):
    other = make_demo_set(tmp_path / "other", train_per_class=3, val_per_class=2, seed=1)
    pictures = [data for root in (small_set, other) for name, data in contents(root).items() if name.endswith("JPEG")]
    assert len(pictures) == 100 and len(set(pictures)) == 100


def test_second_call_uses_what_is_there(tmp_path, monkeypatch):
    root = make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setattr(demo_set, "render", lambda *_: pytest.fail("rendered again"))
    assert make_demo_set(root, train_per_class=1, val_per_class=1) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_parameters_or_missing_files_render_anew(tmp_path):
    root = make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    first = contents(root)
    make_demo_set(root, train_per_class=1, val_per_class=2)
    assert len(contents(root)) == 31
    next((root / "val" / "balls").iterdir()).unlink()
    make_demo_set(root, train_per_class=1, val_per_class=2)
    assert len(contents(root)) == 31
    make_demo_set(root, train_per_class=1, val_per_class=1)
    assert contents(root) == first
    next((root / "val" / "balls").iterdir()).write_bytes(b"")
    make_demo_set(root, train_per_class=1, val_per_class=1)
    assert contents(root) == first
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    assert len(contents(tmp_path / "set")) == 21


def foreign_folder(root):
    root.mkdir()
    (root / "thesis.txt").write_text("three years of work")


def foreign_record(root):
    root.mkdir()
    (root / demo_set.RECORD).write_text(json.dumps({"made_by": "somebody else"}))


def foreign_file(root):
    root.write_text("not even a folder")


def added_picture(root):
    make_demo_set(root, train_per_class=1, val_per_class=1, seed=5)
    (root / "train" / "balls" / "holiday.JPEG").write_bytes(b"mine")


@pytest.mark.parametrize("prepare", [foreign_folder, foreign_record, foreign_file, added_picture])
def test_foreign_files_are_never_overwritten(tmp_path, prepare):
    root = tmp_path / "set"
    prepare(root)
    before = contents(tmp_path)
    with pytest.raises(DataError, match="left as it is"):
        make_demo_set(root, train_per_class=1, val_per_class=1)
    assert contents(tmp_path) == before


def test_interrupted_rendering_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_rendering_keeps_the_earlier_set(tmp_path):
    root = make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError):
        make_demo_set(root, train_per_class=2, val_per_class=1, progress=lambda done, total: 1 // 0)
    assert contents(tmp_path) == before


def test_what_a_killed_run_left_is_removed(tmp_path):
    for name in ("set.0123456789ab.tmp", ".set-ab_cdef0"):  # the second as earlier versions named them
        (tmp_path / name / "new" / "train").mkdir(parents=True)
        (tmp_path / name / "new" / "train" / "x.JPEG").write_bytes(b"x")
        os.utime(tmp_path / name, (0, 0))
    others = [".set-tiny-abcdefgh", "set.backup.tmp", ".settings"]
    for name in others:
        (tmp_path / name).mkdir()
    make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    assert {path.name for path in tmp_path.iterdir()} == {"set", *others}


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot write .*set: File exists: a file lies where a folder is needed"):
        make_demo_set(tmp_path / "file" / "set", train_per_class=1, val_per_class=1)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="cannot write .*set: No space left on device: free space there"):
        make_demo_set(tmp_path / "set", train_per_class=1, val_per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_progress_counts_every_picture(tmp_path):
    calls = []
    make_demo_set(tmp_path / "set", 1, 1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 20) for done in range(1, 21)]


def test_counts_must_be_positive(tmp_path):
    with pytest.raises(DataError, match="train_per_class=0"):
        make_demo_set(tmp_path / "set", train_per_class=0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # 0 / 0
def test_the_linear_baseline_has_no_score_where_its_weights_are_not_finite(tmp_path):
    """Pixels that are the same in all pictures have no spread: argmax would take nan for an answer."""
    for split in ("train", "val"):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40), "grey").save(tmp_path / split / name / "a.png")
    with pytest.raises(SystemExit, match="the weights are not finite"):
        linear_baseline.measure(tmp_path, 32)
