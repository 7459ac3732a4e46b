"""The command that packs pictures, and the main job on what it has packed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from folder_source import FolderSource
from narrow import coloured_classes, narrow_net  # noqa: F401
from narrow import main as train
from test_data_sources import tiny, unpack, zip_of
from test_data_store import flip, tree

from minigrad import checkpoint
from minigrad.data import ImageFolder, PackedImages, find_source, open_images, pack, store
from minigrad.data.packing import LOCK

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import alexnet_imagenet  # noqa: E402
import going_on  # noqa: E402
import prepare_imagenet  # noqa: E402
from trained import Trained  # noqa: E402

RUN = ["--no-figures", "--batch-size", "4", "--epochs", "2", "--lr", "0.003"]


def of_several_kinds(image, folder, i):
    image.save(folder / (f"{i}.png" if i % 2 else f"{i}.JPEG"), "png" if i == 1 else "jpeg")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes told apart by colour, all of them readable, in files of several kinds and sizes."""
    root = tmp_path_factory.mktemp("pictures")
    return coloured_classes(root, 4, 1, size=lambda i: (230 + 20 * i, 300), save=of_several_kinds)


def prepare(capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    code = prepare_imagenet.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def packed(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("packed") / "store"
    pack(FolderSource(pictures), root)
    return root


# ---------------------------------------------------------------- the command


def test_it_packs_says_so_and_checks(pictures, packed, tmp_path, capsys):
    code, out, err = prepare(capsys, pictures, tmp_path / "s", "--check")
    assert code == 0, err
    assert "class folders, 12 of train and 3 of val, 3 classes" in out
    assert "15 pictures of 256 x 256 take " in out and " are free" in out
    assert "12 of train and 3 of val, after " in out and "all is as it was written" in out
    assert out.splitlines()[-1].endswith(f"alexnet_imagenet.py --data {tmp_path / 's'}")
    assert tree(tmp_path / "s") == tree(packed)
    code, out, err = prepare(capsys, pictures, tmp_path / "s")
    assert code == 0 and "is packed already, with these settings" in out
    flip(tmp_path / "s" / "val" / "00000.pixels", 1000)
    code, out, err = prepare(capsys, tmp_path / "s", "--check")
    assert code == 1 and "val/00000.pixels has another checksum" in out
    assert err.endswith("1 faults: move it away, and pack it anew\n")


def test_its_options_reach_the_store(pictures, tmp_path, capsys):
    code, out, err = prepare(
        capsys, pictures, tmp_path / "s", "--size", 300, "--place-small", "--limit", 2, "--workers", 1, "--jpeg"
    )
    assert code == 0, err
    settings = json.loads((tmp_path / "s" / store.MANIFEST).read_text())["settings"]
    assert settings == {"size": 300, "fit": "place", "background": [127, 120, 105], "jpeg_quality": 90, "limit": 2}
    images = PackedImages(tmp_path / "s")
    assert len(images) == 6 and images.image(0).shape == (300, 300, 3)
    expected = ImageFolder(pictures, "train", limit=2).paths
    assert [str(pictures / path) for path in images.paths] == expected
    code, out, err = prepare(capsys, pictures, tmp_path / "t", "--jpeg", 50)
    assert code == 0 and PackedImages(tmp_path / "t").kind == "JPEG 50"


def test_what_the_main_job_will_lack_is_said_before_the_packing(pictures, tmp_path, capsys):
    shutil.copytree(pictures / "train", tmp_path / "mine")
    code, out, err = prepare(capsys, tmp_path / "mine", tmp_path / "s", "--check")
    assert code == 0 and "class folders, 12 of train, 3 classes" in out and "Try next" not in out
    assert "there is no val, and the main job needs train and val: the class folders lie in " in err


def test_pictures_that_are_left_out_are_named(pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "train" / "bee" / "x\x1b.jpg").write_bytes(b"no picture")
    code, out, err = prepare(capsys, tmp_path / "in", tmp_path / "s")
    assert code == 0 and "12 of train" in out
    assert "1 pictures were left out, see " in out and r"train/bee/x\x1b.jpg (UnidentifiedImageError: no JPEG" in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["SRC"], "give SRC and DST, or DST and --check; got 1 paths"),
        (["SRC", "DST", "MORE"], "got 3 paths"),
        (["SRC", ""], "must not be empty"),
        (["SRC", "DST", "--jpeg", "0"], "must be above 0"),
        (["SRC", "DST", "--jpeg", "101"], "must be at most 100"),
        (["SRC", "DST", "--size", "1e3"], "invalid whole number value"),
        (["SRC", "DST", "--limit", "-1"], "must be above 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        prepare_imagenet.main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and said in err and len(err.splitlines()) == 1


def test_folders_that_are_something_else_are_left_as_they_are(pictures, packed, tmp_path, capsys):
    before = tree(pictures), tree(packed)
    for arguments, said in [
        ([pictures, pictures], "holds something else (train, val), and is left as it is"),
        ([pictures, packed, "--jpeg"], "jpeg_quality null there, 90 now"),
        ([pictures, "--check"], "is no packed store"),
    ]:
        code, out, err = prepare(capsys, *arguments)
        assert code == 2 and said in err.splitlines()[-1], err
    assert (tree(pictures), tree(packed)) == before


def test_what_cannot_be_written_is_told_with_the_command_that_goes_on(pictures, packed, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, out, err = prepare(capsys, pictures, tmp_path / "s")
    assert code == 1 and "No space left on device" in err and err.rstrip().endswith(f"{pictures} {tmp_path / 's'}")
    assert prepare(capsys, pictures, tmp_path / "s")[0] == 0 and tree(tmp_path / "s") == tree(packed)


PROGRAM = f"""
import sys
sys.path[:0] = [{str(ROOT / "examples")!r}, {str(ROOT / "tests")!r}]
import interruption
interruption.begin()
import time
from folder_source import FolderListing, FolderSource
read = FolderListing.read
FolderListing.read = lambda listing, index: (time.sleep(0.02), read(listing, index))[1]
import prepare_imagenet
prepare_imagenet.find_source = FolderSource
interruption.finish(prepare_imagenet.main)
"""


def test_signals_end_it_in_order_and_it_goes_on(pictures, packed, tmp_path):
    """First killed, then told to end by SIGTERM, then by Ctrl-C, and at last let alone."""
    command = [sys.executable, "-c", PROGRAM, str(pictures), str(tmp_path / "s"), "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def begun():
        return any((tmp_path / "s").rglob("*.pixels.*.tmp"))

    for number, code in [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        leftover = {path.name for path in (tmp_path / "s").rglob("*.tmp")} if (tmp_path / "s").exists() else set()
        while process.poll() is None and not {p.name for p in (tmp_path / "s").rglob("*.pixels.*.tmp")} - leftover:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, (out, err)
        if number != signal.SIGKILL:
            lines = err.strip().splitlines()
            assert lines[-2].startswith("what is packed is kept; to go on: ")
            assert lines[-2].endswith(f"--workers 1 {pictures} {tmp_path / 's'}")
            assert lines[-1] == f"prepare_imagenet.py: interrupted ({signal.Signals(number).name})"
            assert not begun() and not (tmp_path / "s" / LOCK).exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "s") == tree(packed)


# ---------------------------------------------------------------- the main job on a store


def end_of(run):
    """What must be equal: weights, preparation, scores, and the log but for its times."""
    weights, _ = checkpoint.load(run / "weights.safetensors")
    metrics = json.loads((run / "metrics.json").read_text())
    config = json.loads((run / "config.json").read_text())
    return {
        "weights": {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in weights.items()},
        "preparation": hashlib.sha256((run / "preparation.npz").read_bytes()).hexdigest(),
        "scores": {name: value for name, value in metrics.items() if name != "training"},
        "log": [line.split(",")[:8] for line in (run / "log.csv").read_text().splitlines()],
        "config": {name: config[name] for name in ("classes", "statistics", "train_files", "val_files")},
    }


def test_a_run_on_a_store_is_one_on_its_folder_to_the_bit(pictures, packed, tmp_path, capsys):
    for name, data, more in ("folder", pictures, []), ("store", packed, ["--stats-images", 3]):
        code, out, err = train(capsys, *RUN, "--data", data, "--out", tmp_path, "--name", name, *more)
        assert code == 0 and "12 training and 3 test images of 3 classes" in out, err
        assert ("--stats-images is not needed: a store has statistics of all" in err) is (name == "store")
    assert end_of(tmp_path / "folder") == end_of(tmp_path / "store")
    # evaluation, of either on either
    found = []
    for run, data in [("folder", packed), ("store", None)]:
        given = [] if data is None else ["--data", data]
        code, out, err = train(capsys, "--evaluate", tmp_path / run / "weights.safetensors", *given, "--json")
        assert code == 0, err
        result = json.loads(out)
        found.append(result[str(tmp_path / run / "weights.safetensors")])
        assert result["images"] == str((data or packed) / "val")
    assert found[0] == found[1]


def test_a_run_goes_on_with_the_store_of_its_folder_but_not_with_other_pixels(pictures, packed, tmp_path, capsys):
    assert prepare(capsys, pictures, tmp_path / "jpeg", "--jpeg")[0] == 0
    for name, data in ("folder", pictures), ("jpeg-run", tmp_path / "jpeg"):
        code, out, err = train(capsys, *RUN, "--data", data, "--out", tmp_path, "--name", name, "--epochs", 1)
        assert code == 0, err
    code, out, err = train(capsys, "--resume", tmp_path / "folder", "--data", tmp_path / "jpeg", "--epochs", 2)
    assert code == 2 and "are not those that the run was begun with (pixels: None then, JPEG 90, scale now)" in err
    code, out, err = train(capsys, "--resume", tmp_path / "jpeg-run", "--data", pictures, "--epochs", 2)
    assert code == 2 and "(pixels: JPEG 90, scale then, None now)" in err
    code, out, err = train(capsys, "--resume", tmp_path / "folder", "--data", packed, "--epochs", 2)
    assert code == 0 and "going on after step 3 of 6" in out, err


def test_a_net_trained_on_placed_pictures_is_asked_about_placed_pictures(pictures, tmp_path, capsys):
    assert prepare(capsys, pictures, tmp_path / "placed", "--place-small")[0] == 0
    more = ["--steps", 1, "--val-limit", 1, "--devices", "cpu:0", "--out", tmp_path, "--name", "r"]
    code, out, err = train(capsys, *RUN, "--data", tmp_path / "placed", *more)
    assert code == 0, err
    weights, val = tmp_path / "r" / "weights.safetensors", PackedImages(tmp_path / "placed", "val")
    small = val.paths.index("val/bee/0.JPEG")
    assert not np.array_equal(val.image(small), ImageFolder(pictures, "val").image(small))
    net = Trained.restore(weights, "trainable", ["cpu:0"])
    assert net.stats.fit == "place"
    code, out, err = train(capsys, "--predict", weights, pictures / "val" / "bee" / "0.JPEG", "--json")
    assert code == 0, err
    expected = np.exp(net.log_probabilities(val.image(small)))
    found = json.loads(out)[0]["classes"]
    assert [found[name] for name in net.classes] == pytest.approx(expected.tolist(), rel=1e-4)
    for data in tmp_path / "placed", pictures:
        code, out, err = train(capsys, "--evaluate", weights, "--data", data, "--val-limit", 1)
        assert code == 0
        assert ("small pictures are enlarged here, and were placed unscaled" in err) is (data == pictures), err
    again = going_on.stats_of_values(going_on.stats_as_values(net.stats))
    assert again.fit == "place" and again.count == net.stats.count


@pytest.mark.filterwarnings("ignore:.*passed over for their endings")
@pytest.mark.parametrize("form", ["test", "Tiny ImageNet", "zip"])
def test_a_run_goes_on_with_the_store_of_any_source_and_back(pictures, tmp_path, capsys, form):
    data, store_of_it = tmp_path / "pictures", tmp_path / "store"
    if form == "Tiny ImageNet":
        unpack(data, tiny())
    else:
        shutil.copytree(pictures, data)
    if form == "test":
        (data / "val").rename(data / "test")
    if form == "zip":
        files = {f"pets/{path.relative_to(data)}": path.read_bytes() for path in data.rglob("*.*")}
        data = tmp_path / "pets.zip"
        data.write_bytes(zip_of(files))
    pack(find_source(data), store_of_it)
    of_source, of_store = (
        going_on.facts_of_data(open_images(root, "train"), open_images(root, "val")) for root in (data, store_of_it)
    )
    assert of_source == of_store
    code, out, err = train(capsys, *RUN, "--data", data, "--out", tmp_path, "--name", "r", "--epochs", 1)
    assert code == 0, err
    for epochs, root in (2, store_of_it), (3, data):
        code, out, err = train(capsys, "--resume", tmp_path / "r", "--data", root, "--epochs", epochs)
        assert code == 0 and f"in epoch {epochs}" in out, err


def test_names_within_a_split_keep_their_first_folder():
    """The name of the split goes, once, and nothing else: a class may be named as a split is."""

    def names(*paths):
        class Images(list):
            folder, classes = Path("d.zip"), ("a", "train")
            paths = property(lambda self: list(self))

        return going_on.facts_of_data(Images(paths), Images())["train_files"]

    assert names("train/train/1.jpg", "train/a/1.jpg") == names("val/train/1.jpg", "test/a/1.jpg")
    assert names("train/train/1.jpg") != names("train/1.jpg") and names("trains/1.jpg") != names("1.jpg")


def test_what_the_main_job_says_of_stores_it_cannot_use(pictures, tmp_path, capsys):
    assert prepare(capsys, pictures, tmp_path / "small", "--size", 64)[0] == 0
    code, out, err = train(capsys, *RUN, "--data", tmp_path / "small", "--out", tmp_path)
    assert code == 2 and "are 64 x 64, and 256 x 256 are needed: pack them at that size" in err
    shutil.copytree(tmp_path / "small", tmp_path / "begun")
    (tmp_path / "begun" / store.MANIFEST).rename(tmp_path / "begun" / store.UNFINISHED)
    code, out, err = train(capsys, *RUN, "--data", tmp_path / "begun", "--out", tmp_path)
    assert code == 2 and "is not finished: pack it on" in err


def test_the_facts_of_a_folder_are_as_they_were(pictures, packed):
    """Runs that were begun before there were stores go on."""
    import zlib

    train_set, val_set = ImageFolder(pictures, "train"), ImageFolder(pictures, "val")
    names = "\n".join(str(Path(path).relative_to(train_set.folder)) for path in train_set.paths)
    facts = going_on.facts_of_data(train_set, val_set)
    assert facts["train_files"] == f"{zlib.crc32(names.encode()):08x}"
    assert facts == going_on.facts_of_data(PackedImages(packed, "train"), PackedImages(packed, "val"))
    assert list(facts) == ["classes", "train_images", "val_images", "train_files", "val_files"]
    assert alexnet_imagenet.facts_of_data is going_on.facts_of_data
