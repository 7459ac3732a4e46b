"""From ILSVRC2012's official files to a net that knows the classes: packed, killed at that, trained, asked.

Every class of the made-up files has a colour of its own, so which class a picture is of needs no list of labels.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import made_ilsvrc as made
import numpy as np
import pytest
from made_ilsvrc import WNIDS, WORDS
from narrow import main as train
from narrow import narrow_net  # noqa: F401
from test_data_store import tree
from test_ilsvrc import needs_scipy

from minigrad.data import ImageStats, UnreadableImageError, find_source, open_images, pack
from minigrad.data.store import MANIFEST, REPORT

ROOT = Path(__file__).parent.parent
PER_CLASS, VALIDATION = 13, 20  # 71 training pictures: shards of 32, 32 and 7
BROKEN = {f"train/n01443537/n01443537_{1000 + i}.JPEG": word for i, word in enumerate(made.BROKEN.values())}
READABLE = 5 * PER_CLASS + len(made.ODD)

pytestmark = [needs_scipy, pytest.mark.filterwarnings("ignore:Corrupt EXIF")]

# The program itself, which says where it is and waits there to be killed: in its Nth read of a picture, or when a file
# of that name is whole and not yet in its place.
STOPPING = f"""
import os, runpy, sys, time
sys.path.insert(0, {str(ROOT / "examples")!r})
from minigrad.data.listing import Listing
where, reads, real_read, real_replace = sys.argv.pop(1), [], Listing.read, os.replace
def stop():
    print("here", flush=True)
    time.sleep(600)
def read(listing, index):
    reads.append(index)
    if where == str(len(reads)):
        stop()
    return real_read(listing, index)
def replace(source, target):
    if where == os.path.basename(target):
        stop()
    real_replace(source, target)
Listing.read, os.replace = read, replace
sys.argv[0] = {str(ROOT / "examples" / "prepare_imagenet.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def shown(pixels):
    """The class that a picture shows, by its colour."""
    distances = {wnid: np.abs(pixels.mean((0, 1)) - colour).sum() for wnid, colour in made.COLOURS.items()}
    return min(distances, key=distances.get)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return made.make(tmp_path_factory.mktemp("official"), PER_CLASS, VALIDATION)


@pytest.fixture(scope="module")
def packed(official, tmp_path_factory):
    """A store that nobody disturbed."""
    root = tmp_path_factory.mktemp("packed") / "store"
    pack(find_source(official), root, workers=1)
    return root


def test_a_preparation_that_is_killed_goes_on_to_the_same_store(official, packed, tmp_path):
    folder, environment = tmp_path / "store", {**os.environ, "PYTHONPATH": str(ROOT)}

    def process(where, *more):
        command = [sys.executable, "-c", STOPPING, where, str(official), str(folder), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    kept = {}
    # Killed within the second shard, within the pictures of val, and when all of them are packed.
    for where, shards in ("45", 1), ("50", 3), (REPORT, 4):
        child = process(where, "--workers", "1")
        while child.stdout.readline() not in ("here\n", ""):  # "": it has ended before that
            pass
        child.kill()
        said = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, said
        assert len(list(folder.rglob("*.part"))) == shards and list(folder.rglob("*.tmp"))
        assert not (folder / MANIFEST).exists()
        assert all(path.stat().st_mtime_ns == then for path, then in kept.items()), "a whole shard was made anew"
        kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pixels")}
        assert len(kept) == shards
    child = process("", "--workers", "2", "--check")
    said, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "ILSVRC2012, 71 of train and 20 of val, 5 classes" in said
    assert "91 of 91 pictures are packed already: going on" in said and "all is as it was written" in said
    assert tree(folder) == tree(packed)
    left_out = json.loads((folder / REPORT).read_text())["left_out"]
    assert {entry["picture"] for entry in left_out} == set(BROKEN)
    assert all(BROKEN[entry["picture"]] in entry["reason"] for entry in left_out)


def read(images):
    """index -> pixels of the pictures that can be read."""
    found = {}
    for i in range(len(images)):
        with suppress(UnreadableImageError):
            found[i] = images.image(i)
    return found


def test_a_net_that_is_trained_on_the_store_knows_the_classes(official, packed, tmp_path, capsys):
    """It is asked in three ways: about the store, about the official files, and about pictures that nobody labelled."""
    recipe = ["--devices", "cpu:0", "--batch-size", 8, "--val-limit", 1, "--no-figures", "--out", tmp_path]
    code, out, err = train(capsys, *recipe, "--data", packed, "--epochs", 4, "--name", "store")
    assert code == 0 and f"{READABLE} training and 5 test images of 5 classes" in out, err
    weights, answers = tmp_path / "store" / "weights.safetensors", []
    for data in packed, official:
        code, out, err = train(capsys, "--evaluate", weights, "--data", data, "--json", "--devices", "cpu:0")
        assert code == 0, err
        answers.append(json.loads(out)[str(weights)])
    assert answers[0] == answers[1]  # of the same pictures under the same labels
    for views in "one view", "ten views":
        scores = answers[0][views]
        assert scores["images"] == VALIDATION and scores["top1"] > 0.8, scores
        # Were the numbers of the kit taken for places among the sorted wnids, four of the five would be wrong.
        assert {wnid: each["images"] for wnid, each in scores["classes"].items()} == dict.fromkeys(WNIDS, 4)
        assert all(each["top1"] > 0.5 for each in scores["classes"].values()), scores
    assert {wnid: each["words"] for wnid, each in scores["classes"].items()} == WORDS
    for wnid in WNIDS:
        (tmp_path / f"{wnid}.jpg").write_bytes(made.picture(wnid, 5000))
    pictures = [tmp_path / f"{wnid}.jpg" for wnid in WNIDS]
    code, out, err = train(capsys, "--predict", weights, *pictures, "--json", "--devices", "cpu:0")
    assert code == 0, err
    assert [next(iter(entry["classes"])) for entry in json.loads(out)] == list(WNIDS)

    # The official files themselves: the same classes, labels and statistics, with the broken files left out.
    code, out, err = train(capsys, *recipe, "--data", official, "--steps", 1, "--name", "official")
    assert code == 0 and f"{READABLE + 2} training and 5 test images of 5 classes" in out, err
    assert [name for name in BROKEN if f"skipped image '{name}'" in err] == list(BROKEN)
    config = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("store", "official")]
    assert config[0]["classes"] == config[1]["classes"] == list(WNIDS)
    assert config[1]["statistics"].startswith(f"statistics of {READABLE} of {READABLE + 2} images")
    stats = [ImageStats.load(tmp_path / name / "preparation.npz") for name in ("store", "official")]
    assert np.array_equal(stats[0].mean_image, stats[1].mean_image) and np.array_equal(stats[0].pca.sd, stats[1].pca.sd)


def test_labels_are_what_the_pictures_show_in_the_store_and_in_the_files(official, packed):
    for split, lost in ("train", len(BROKEN)), ("val", 0):
        store, files = open_images(packed, split), open_images(official, split)
        in_store, in_files = read(store), read(files)
        assert store.classes == files.classes == WNIDS and store.words == files.words == WORDS
        assert len(in_store) == len(store) == len(in_files) == len(files) - lost
        for images, pixels in (store, in_store), (files, in_files):
            odd = [images.paths[i] for i, each in pixels.items() if shown(each) != WNIDS[images.labels[i]]]
            assert odd == [] and len(set(images.labels.tolist())) == 5
        assert [store.paths[i] for i in in_store] == [files.paths[i] for i in in_files]
        assert all(np.array_equal(a, b) for a, b in zip(in_store.values(), in_files.values()))
        assert store.labels.tolist() == files.labels[list(in_files)].tolist()
