"""Scores in full: intervals, classes, confusions, averages of nets; and what the main job tells of all that."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from narrow import coloured_classes, main, make_narrow, narrow_net  # noqa: F401
from PIL import Image

from minigrad import checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import alexnet_imagenet  # noqa: E402
from scoring import Scores, ensemble, interval, tally  # noqa: E402


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_intervals():
    """Against the definition: the shares from which what was seen lies 1.96 standard deviations away."""
    for share, n in ((0.5, 20), (0.9, 100), (0.0, 10), (1.0, 10), (0.015, 50_000)):
        low, high = interval(share, n)
        assert 0 <= low <= share <= high <= 1
        for true in (low, high):
            if 0 < true < 1:
                assert abs(share - true) == pytest.approx(1.959964 * np.sqrt(true * (1 - true) / n), rel=1e-9)
    assert interval(0.0, 10)[1] == pytest.approx(0.27753, abs=1e-5) and interval(1.0, 10)[1] == 1


def test_classes_and_confusions():
    z = np.array([[3.0, 1, 0], [0, 2, 1], [0, 1, 2], [1, 1, 0], [5, 0, 1]])
    labels = np.array([0, 1, 1, 0, 2])
    scores = tally([(z[:2], log_softmax(z[:2]), labels[:2]), (z[2:], log_softmax(z[2:]), labels[2:])])
    assert (scores.top1, scores.images) == (2 / 5, 5) and scores.right.tolist() == [1, 1, 0]
    facts = scores.facts(["ape", "bee", "cat"])
    assert facts["classes"]["ape"] == {"images": 2, "top1": 0.5}  # the tie counts against it
    assert facts["classes"]["cat"] == {"images": 1, "top1": 0.0}
    assert facts["confusion"] == {"ape": {"ape": 2}, "bee": {"bee": 1, "cat": 1}, "cat": {"ape": 1}}
    assert facts["top1_interval"] == interval(0.4, 5) and facts["loss"] == scores.loss
    json.dumps(facts)
    unseen = tally([(z[:1], log_softmax(z[:1]), labels[:1])]).facts(["ape", "bee", "cat"])
    assert unseen["classes"]["cat"] == {"images": 0, "top1": None} and unseen["confusion"]["cat"] == {}
    assert "classes" not in Scores(1.0, 0.5, 1.0, 4).facts(["ape"])


def test_an_average_of_nets_by_hand():
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 50)
    nets = [log_softmax(3 * random.standard_normal((50, 7))) for _ in range(3)]
    each, average = ensemble([[(p[:20], p[:20], labels[:20]), (p[20:], p[20:], labels[20:])] for p in nets])
    mean = np.mean([np.exp(p) for p in nets], axis=0)
    assert average.top1 == np.mean(mean.argmax(1) == labels)
    assert average.loss == pytest.approx(-np.log(mean[np.arange(50), labels]).mean(), rel=1e-12)
    assert [s.top1 for s in each] == [np.mean(p.argmax(1) == labels) for p in nets]
    assert average.loss < np.mean([s.loss for s in each])  # Jensen
    (one,), same = ensemble([[(nets[0], nets[0], labels)]])
    assert same.loss == pytest.approx(one.loss, rel=1e-12) and same.top1 == one.top1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coloured_classes(tmp_path_factory.mktemp("images"), 3, 2, size=lambda i: (260, 258))


@pytest.fixture(scope="module")
def nets(folder, tmp_path_factory):
    """Weights of two short runs, which differ by their seed."""
    out, found = tmp_path_factory.mktemp("runs"), []
    options = ["--data", str(folder), "--out", str(out), "--steps", "3", "--batch-size", "3", "--no-figures"]
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        for seed in ("0", "1"):
            assert alexnet_imagenet.main([*options, "--devices", "cpu:0", "--name", f"r{seed}", "--seed", seed]) == 0
            found.append(out / f"r{seed}" / "weights.safetensors")
    return found


def test_metrics_tell_of_classes_and_confusions(nets):
    metrics = json.loads((nets[0].parent / "metrics.json").read_text())
    ten = metrics["ten_views"]
    assert list(ten["classes"]) == ["ape", "bee", "cat"] and all(c["images"] == 2 for c in ten["classes"].values())
    assert sum(c["top1"] for c in ten["classes"].values()) / 3 == pytest.approx(ten["top1"])
    assert sum(n for row in ten["confusion"].values() for n in row.values()) == 6
    low, high = ten["top1_interval"]
    assert low <= ten["top1"] <= high and metrics["one_view"]["top5_interval"][1] == 1


def test_evaluate_several(nets, folder, capsys):
    code, out, err = main(capsys, "--evaluate", *nets, "--devices", "cpu:0")
    assert code == 0, err
    assert out.count(", one view\n") == out.count(", ten views\n") == 3
    assert out.count("the average of 2 nets: top-1 ") == 2
    code, told, err = main(capsys, "--evaluate", *nets, "--devices", "cpu:0", "--json")
    found = json.loads(told)
    assert set(found) == {"images", *map(str, nets), "average"} and found["images"] == str(folder / "val")
    kept = json.loads((nets[1].parent / "metrics.json").read_text())
    for views in ("one view", "ten views"):
        told = found[str(nets[1])][views]
        assert told["top1"] == kept[views.replace(" ", "_")]["top1"]
        assert found["average"][views]["loss"] <= (found[str(nets[0])][views]["loss"] + told["loss"]) / 2
    code, told, _ = main(capsys, "--evaluate", nets[0], nets[0], "--devices", "cpu:0", "--json")
    same = json.loads(told)
    assert same["average"]["ten views"]["loss"] == pytest.approx(same[str(nets[0])]["ten views"]["loss"], rel=1e-9)


def test_nets_of_other_classes_are_not_averaged(nets, tmp_path, capsys):
    state, facts = checkpoint.load(nets[1])
    (tmp_path / "w").mkdir()
    checkpoint.save(tmp_path / "w" / "w.safetensors", state, facts | {"classes": json.dumps(["ape", "cat", "bee"])})
    code, _, err = main(capsys, "--evaluate", nets[0], tmp_path / "w" / "w.safetensors", "--devices", "cpu:0")
    assert code == 2 and "has other classes than" in err and "only nets of the same classes" in err


def test_predict_a_folder_as_table_as_json_and_as_a_picture(nets, folder, tmp_path, capsys):
    images = [str(folder / "val" / "ape" / f"{i}.png") for i in range(2)]
    code, table, err = main(capsys, "--predict", nets[0], folder / "val" / "ape", "--devices", "cpu:0")
    assert code == 0 and [line.split(": ")[0] for line in table.splitlines()] == images, err
    code, told, _ = main(
        capsys,
        "--predict",
        nets[0],
        folder / "val" / "ape",
        "--devices",
        "cpu:0",
        "--json",
        "--picture",
        tmp_path / "p.png",
    )
    found = json.loads(told)
    assert [one["image"] for one in found] == images
    for one, line in zip(found, table.splitlines()):
        shares = list(one["classes"].values())
        assert sum(shares) == pytest.approx(1, abs=1e-6) and shares == sorted(shares, reverse=True)
        assert line.endswith(", ".join(f"{name} {share:.1%}" for name, share in one["classes"].items()))
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("L"))
    assert min(picture.shape) > 200 and picture.std() > 5
    (tmp_path / "empty").mkdir()
    code, _, err = main(capsys, "--predict", nets[0], tmp_path / "empty", "--devices", "cpu:0")
    assert code == 2 and "holds no image (.jpg, " in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--json"], "--json: goes with --evaluate or --predict"),
        (["--picture", "x.png"], "--picture: goes with --predict"),
    ],
)
def test_what_goes_with_what(arguments, message, capsys):
    with pytest.raises(SystemExit):
        alexnet_imagenet.main(arguments)
    assert message in capsys.readouterr().err
