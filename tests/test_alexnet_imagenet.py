"""The main job from end to end, with a narrow net on a small folder of odd files."""

import csv
import functools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigrad.cudasim import compiler

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import alexnet_imagenet  # noqa: E402
import trained  # noqa: E402
from alexnet import AlexNet  # noqa: E402

NARROW = (6, 8, 12, 12, 8, 40, 40)
PICTURES = ("learning_curves.png", "conv1_kernels.png", "predictions.png", "nearest.png")


@pytest.fixture(autouse=True)
def narrow_net(monkeypatch, tmp_path):
    for module in (alexnet_imagenet, trained):
        monkeypatch.setattr(module, "AlexNet", functools.partial(AlexNet, widths=NARROW))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes told apart by colour, in every kind of file that ILSVRC holds, and one that is broken."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3)):
        for label, name in enumerate(("ape", "bee", "cat")):
            here = root / split / name
            here.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80, (60 + 7 * i, 90 - 5 * i, 3))
                pixels[..., label] += 150
                image = Image.fromarray(pixels.astype("uint8"))
                if i == 0:
                    image.convert("CMYK").save(here / "a.JPEG")
                elif i == 1:
                    image.convert("L").save(here / "b.jpg")
                elif i == 2:
                    image.save(here / "c.png")
                else:
                    image.save(here / f"{i}.JPG", "jpeg")
    (root / "train" / "bee" / "broken.jpg").write_bytes((root / "train" / "bee" / "3.JPG").read_bytes()[:300])
    return root


def run(capsys, *arguments):
    """(exit code, standard output, standard error) of the program."""
    code = alexnet_imagenet.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


emulated = [pytest.mark.slow, pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))]


@pytest.mark.parametrize("devices", ["cpu:0,cpu:1", "cpu:0", pytest.param("cudasim:0,cudasim:1", marks=emulated)])
def test_train_evaluate_predict(folder, tmp_path, capsys, devices):
    out_folder = tmp_path / "runs"
    code, out, err = run(
        capsys, "--data", folder, "--out", out_folder, "--epochs", 3, "--batch-size", 6, "--devices", devices
    )
    assert code == 0, err
    assert "broken.jpg" in out and "broken.jpg" in err, (
        "the unreadable file is to be named, while it runs and at the end"
    )
    assert "31 training and 9 test images of 3 classes" in out
    (result,) = out_folder.iterdir()
    assert {path.name for path in result.iterdir()} == {
        "config.json", "log.csv", "metrics.json", "weights.safetensors", "preparation.npz", *PICTURES
    }  # fmt: skip
    for name in PICTURES:
        picture = np.asarray(Image.open(result / name).convert("L"))
        assert min(picture.shape) > 200 and picture.std() > 5, f"{name} is blank"
    config = json.loads((result / "config.json").read_text())
    assert config["classes"] == ["ape", "bee", "cat"] and config["recipe"]["epochs"] == 3
    rows = list(csv.DictReader((result / "log.csv").open()))
    assert [row["split"] for row in rows] == (["train"] * 5 + ["val"]) * 3
    assert all(float(row["loss"]) > 0 for row in rows)
    scores = json.loads((result / "metrics.json").read_text())
    assert {name: (s["views"], s["epoch"], s["step"], s["images"]) for name, s in scores.items()} == {
        "one_view": (1, 3, 15, 9), "ten_views": (10, 3, 15, 9)
    }  # fmt: skip
    assert f"Ten views: top-1 {scores['ten_views']['top1']:.1%}" in out
    assert float(rows[-1]["loss"]) == pytest.approx(scores["one_view"]["loss"], rel=1e-5)
    rates = [float(row["lr"]) for row in rows if row["split"] == "train"]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.1 * rates[0], "the cosine falls towards 0"

    weights = result / "weights.safetensors"
    code, evaluated, _ = run(capsys, "--data", folder, "--evaluate", weights, "--devices", "cpu:0")
    assert code == 0
    same = [line for line in out.splitlines() if line.startswith("Ten views:")][0]
    assert same.split("Ten views: ")[1].split(" (guessing")[0] in evaluated, "one device or two: the same scores"

    image = folder / "val" / "cat" / "a.JPEG"
    code, predicted, err = run(capsys, "--predict", weights, image, tmp_path / "no.jpg", "--devices", "cpu:0")
    assert code == 0 and "no.jpg" in err
    shares = [float(part.split()[-1].rstrip("%")) for part in predicted.strip().split(": ")[1].split(", ")]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)


def test_the_same_seed_gives_the_same_run(folder, tmp_path, capsys):
    columns = []
    for workers in (0, 3):
        run(
            capsys, "--data", folder, "--out", tmp_path / f"{workers}", "--steps", 4, "--batch-size", 7, "--workers",
            workers, "--no-figures", "--seed", 5,
        )  # fmt: skip
        (result,) = (tmp_path / f"{workers}").iterdir()
        columns.append([row["loss"] for row in csv.DictReader((result / "log.csv").open())])
    assert columns[0] == columns[1] and len(columns[0]) == 5


@pytest.mark.parametrize("preset", ["paper", "original"])
def test_the_papers_recipe_runs(folder, tmp_path, capsys, preset):
    code, out, err = run(
        capsys, "--data", folder, "--preset", preset, "--steps", 2, "--batch-size", 8, "--out", tmp_path, "--no-figures"
    )
    assert code == 0, err
    assert f"preset {preset}" in out


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_keeps_its_weights(folder, tmp_path, capsys, monkeypatch, name, code):
    def interrupted(model, batches, *args, real=alexnet_imagenet.train_epoch, **options):
        def until_ctrl_c():
            for i, batch in enumerate(batches):
                if i == 2:
                    signal.raise_signal(getattr(signal, name))
                yield batch

        return real(model, until_ctrl_c(), *args, **options)

    monkeypatch.setattr(alexnet_imagenet, "train_epoch", interrupted)
    done, out, err = run(
        capsys, "--data", folder, "--out", tmp_path, "--epochs", 2, "--batch-size", 6, "--name", "mine"
    )
    assert done == code and f"interrupted ({name})" in err
    assert "Stopped after 2 of 10 steps: keeping the net" in out and "Ten views" not in out
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert left == {"config.json", "log.csv", "weights.safetensors", "preparation.npz"}, "nothing is drawn any more"
    done, out, err = run(capsys, "--data", folder, "--evaluate", tmp_path / "mine" / "weights.safetensors")
    assert done == 0, err


def test_a_picture_that_cannot_be_drawn_costs_neither_scores_nor_the_other_pictures(
    folder, tmp_path, capsys, monkeypatch
):
    def broken(*_):
        assert "ten_views" in (tmp_path / "mine" / "metrics.json").read_text(), "scores go to a file first"
        raise ValueError("a font is\nmissing")

    monkeypatch.setattr(alexnet_imagenet.figures, "conv1_kernels", broken)
    code, out, err = run(capsys, "--data", folder, "--out", tmp_path, "--steps", 2, "--batch-size", 6, "--name", "mine")
    assert code == 1 and "conv1_kernels.png could not be drawn: ValueError: a font is" in err
    assert err.splitlines()[-1].endswith("not all of the run could be written: conv1_kernels.png: a font is")
    assert "Ten views" in out and "conv1_kernels" not in out
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert set(PICTURES) - left == {"conv1_kernels.png"}


def test_any_name_of_a_class_can_be_drawn(folder, tmp_path, capsys):
    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    for split in ("train", "val"):
        (odd / split / "ape").rename(odd / split / r"$\foo$")
        (odd / split / "bee").rename(odd / split / "$a^{_\x1b[31m")
    code, out, err = run(capsys, "--data", odd, "--out", tmp_path / "runs", "--steps", 1, "--batch-size", 6)
    assert code == 0, err
    assert all(name in out for name in PICTURES) and "\x1b" not in err


def test_a_run_is_never_overwritten(folder, tmp_path, capsys):
    common = ("--data", folder, "--out", tmp_path, "--steps", 1, "--batch-size", 4, "--no-figures", "--name", "mine")
    assert run(capsys, *common)[0] == 0
    before = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    code, _, err = run(capsys, *common)
    assert code == 2 and "mine exists" in err
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is what this run is about
def test_a_diverging_run_says_so(folder, tmp_path, capsys):
    code, _, err = run(
        capsys, "--data", folder, "--lr", "1e30", "--out", tmp_path, "--epochs", 9, "--batch-size", 8, "--no-figures"
    )
    assert code == 1 and "start again with a lower --lr" in err


BAD = [
    (["--epochs", "0"], "--epochs: must be above 0, got 0"),
    (["--batch-size", "x"], "--batch-size: invalid whole number value: 'x'"),
    (["--lr", "nan"], "--lr: must be above 0"),
    (["--devices", "tpu:0"], "expected a name such as 'cpu:0'"),
    (["--devices", "cpu:0,cpu:0"], "one device or two different ones"),
    (["--devices", "cuda:0"], "cuda:0"),
    (["--preset", "best"], "invalid choice: 'best'"),
    (["--no-such-option"], "unrecognized arguments"),
    (["--data", "/no/such/folder"], "'/no/such/folder' should be a folder with train/ and val/ inside"),
    (["--evaluate", "/no/such/weights"], "/no/such/weights"),
    (["--predict", "/no/such/weights"], "at least one image"),
]


@pytest.mark.parametrize("arguments, message", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_values_get_one_line_and_exit_code_2(arguments, message):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "alexnet_imagenet.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_help_reads_well():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "alexnet_imagenet.py", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    for option in ("--data", "--devices", "--epochs", "--batch-size", "--lr", "--preset", "--seed", "--workers",
                   "--evaluate", "--predict"):  # fmt: skip
        assert option in done.stdout
