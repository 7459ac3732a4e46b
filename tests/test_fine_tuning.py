"""Weights of another net as the beginning: other classes, frozen layers; the schedule of the run behind the paper."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from narrow import NARROW, coloured_classes, main, narrow_net  # noqa: F401

from minigrad import ArgumentError, CheckpointError, Tensor, checkpoint, nn, optim

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import alexnet_imagenet  # noqa: E402
from alexnet import PRESETS, AlexNet  # noqa: E402
from alexnet_options import RECIPES, Recipe, layer_list, parse, recipe_for  # noqa: E402
from run_folder import rows_of  # noqa: E402
from zoo import first_weights  # noqa: E402

# ---------------------------------------------------------------- load_state_dict


def test_what_does_not_fit_is_left_out_and_told():
    model, other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6))
    state = other.state_dict()
    names = list(state)
    del state[names[1]]
    state["more"] = np.zeros(3)
    before = model.state_dict()
    left_out = model.load_state_dict(state, strict=False)
    assert left_out == ([names[1]], ["more"], names[2:])
    after = model.state_dict()
    assert after[names[0]].tobytes() == state[names[0]].tobytes()
    assert all(after[name].tobytes() == before[name].tobytes() for name in names[1:])
    assert model.load_state_dict(after) == ([], [], [])
    with pytest.raises(CheckpointError, match="missing: .*bias"):
        model.load_state_dict(state)
    with pytest.raises(
        CheckpointError, match="not one name and shape of the 1 given fits Sequential, .*given were what"
    ):
        model.load_state_dict({"what": np.zeros(2)}, strict=False)
    with pytest.raises(CheckpointError, match="wrong type: "):
        model.load_state_dict({names[0]: np.zeros((4, 3), int)}, strict=False)
    with pytest.raises(ArgumentError, match="strict must be True or False"):
        model.load_state_dict(after, strict="no")


@pytest.mark.parametrize("devices", [("cpu:0",), ("cpu:0", "cpu:1")])
def test_alexnet_of_other_classes(devices):
    big, small = (AlexNet(n, "trainable", devices, widths=NARROW) for n in (9, 4))
    before, state = small.state_dict(), big.state_dict()
    assert small.load_state_dict(state, strict=False) == ([], [], ["fc8.weight", "fc8.bias"])
    for name, array in small.state_dict().items():
        expected = before if name.startswith("fc8") else state
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("devices", [("cpu:0",), ("cpu:0", "cpu:1")])
def test_frozen_layers_do_not_move(devices):
    net = AlexNet(3, "trainable", devices, widths=NARROW)
    net.freeze(["conv1", "conv2", "fc6"])
    optimizer = optim.SGD(list(net.parameter_groups(0.1, 0.1)), 0.1, momentum=0.9)
    before = net.state_dict()
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype("f"), device=devices[0])
    (net(x) ** 2).sum().backward()
    optimizer.step()
    moved = {name for name, array in net.state_dict().items() if array.tobytes() != before[name].tobytes()}
    assert {name.split(".")[0] for name in moved} == {"conv3", "conv4", "conv5", "fc7", "fc8"}
    net.freeze(["conv1"], frozen=False)
    assert net.columns[0].conv1.weight.requires_grad
    with pytest.raises(ArgumentError, match="the layers are conv1, .*, got conv9"):
        net.freeze(["conv9"])
    with pytest.raises(ArgumentError, match="are all that there is to train"):
        net.freeze(["conv1", "conv3", "conv4", "conv5", "fc7", "fc8"])


@pytest.mark.parametrize("devices", [("cpu:0",), ("cpu:0", "cpu:1")])
@pytest.mark.parametrize("preset, of_biases, bias_lr", [("trainable", 0.3, 1), ("original", 0.0, 2)])
def test_a_layer_may_learn_and_decay_by_itself(devices, preset, of_biases, bias_lr):
    """One step of gradients 1 from weights 1 and biases 0.5."""
    net = AlexNet(3, preset, devices, widths=NARROW)
    for name, parameter in net.named_parameters():
        parameter.data[...] = 1 if name.endswith("weight") else 0.5
        parameter.grad = Tensor(np.ones(parameter.shape, "f"), device=parameter.device)
    optim.SGD(list(net.parameter_groups(0.01, 0.3, {"conv1": (0.04, 2.0)})), 0.01, momentum=0.9).step()
    for name, array in net.state_dict().items():
        rate, decay = (0.04, 2.0) if name.startswith("conv1") else (0.01, 0.3)
        expected = 1 - rate * (1 + decay) if name.endswith("weight") else 0.5 - bias_lr * rate * (1 + 0.5 * of_biases)
        np.testing.assert_allclose(array, expected, rtol=1e-6, err_msg=name)


def test_conv1_s_own_rate_and_decay_in_a_recipe():
    trainable = replace(RECIPES["trainable"], conv1_lr=2, conv1_weight_decay=0.1)
    assert trainable.apart() == {"conv1": (pytest.approx(0.006), 0.1)}
    assert replace(trainable, conv1_lr=1.0, conv1_weight_decay=None).apart() == {} == RECIPES["paper"].apart()
    assert replace(RECIPES["paper"], conv1_lr=2.0).apart() == {"conv1": (0.02, 0.0005)}
    assert replace(RECIPES["paper"], schedule="original").apart() == {"conv1": (0.01, 0.0005)}


def test_a_run_keeps_its_recipe_whatever_the_preset_has_become():
    options = parse(["--epochs", "7", "--lr", "0.5"])
    before = {"lr": 0.01, "batch_size": 8, "epochs": 2, "schedule": "cosine", "dropout": 0.4, "of_a_later_version": 1}
    assert recipe_for(options, before) == Recipe(0.5, 8, 7, "cosine", dropout=0.4)


# ---------------------------------------------------------------- the program


def test_from_many_classes_to_few(tmp_path, capsys, monkeypatch):
    """A net of seven classes becomes one of three, its convolutions as they were."""
    monkeypatch.setitem(RECIPES, "trainable", replace(RECIPES["trainable"], conv1_lr=2, conv1_weight_decay=0.1))
    many = coloured_classes(tmp_path / "many", 1, 1, classes=[f"class{k}" for k in range(7)])
    few = coloured_classes(tmp_path / "few", 3, 1, classes=[f"class{k}" for k in range(3)])
    options = ["--out", tmp_path, "--batch-size", 3, "--steps", 2, "--no-figures", "--devices", "cpu:0"]
    assert main(capsys, *options, "--data", many, "--name", "big")[0] == 0
    weights = tmp_path / "big" / "weights.safetensors"
    code, out, err = main(
        capsys, *options, "--data", few, "--name", "small", "--init", weights, "--freeze", "conv1-conv5"
    )
    assert code == 0, err
    assert f"weights of {weights}; these begin anew: fc8." in out and "fc8.bias" in out and "fc7" not in out
    before, after = (checkpoint.load(tmp_path / name / "weights.safetensors")[0] for name in ("big", "small"))
    recipes = [json.loads((tmp_path / name / "config.json").read_text())["recipe"] for name in ("big", "small")]
    assert [recipe["conv1_lr"] for recipe in recipes] == [2, 1], "kernels that have been learned go on gently"
    assert after["fc8.weight"].shape == (3, 80)
    first = next(rows_of(tmp_path / "small" / "log.csv"))
    assert first["loss"] == pytest.approx(np.log(3), abs=0.25)  # fc8 was fitted to what the other layers give
    for name in before:
        layer = name.split(".")[0]
        same = before[name].shape == after[name].shape and before[name].tobytes() == after[name].tobytes()
        assert same == layer.startswith("conv"), name
    assert json.loads((tmp_path / "small" / "config.json").read_text())["options"]["init"] == str(weights)
    code, out, err = main(capsys, "--resume", tmp_path / "small", "--steps", 4)  # frozen as it was, nothing loaded anew
    assert code == 0 and "weights of" not in out, err
    again = checkpoint.load(tmp_path / "small" / "weights.safetensors")[0]
    assert again["conv3.weight"].tobytes() == before["conv3.weight"].tobytes()
    assert again["fc6.weight"].tobytes() != after["fc6.weight"].tobytes()
    (few / "train" / "class2").rename(few / "train" / "bee"), (few / "val" / "class2").rename(few / "val" / "bee")
    weights, more = tmp_path / "small" / "weights.safetensors", ["--data", few, "--steps", 1, "--lr", 1e-9]
    code, out, err = main(capsys, *options, *more, "--name", "renamed", "--init", weights)
    assert code == 0 and "; these begin anew: fc8.weight, fc8.bias (fc8, as the weights do not name these" in out, err
    assert next(rows_of(tmp_path / "renamed" / "log.csv"))["loss"] == pytest.approx(np.log(3), abs=0.25)  # fitted
    for wrong, message in (("conv6", "layers are conv1, "), ("conv1-fc8", "are all that there is to train")):
        try:
            code, _, err = main(capsys, *options, "--data", few, "--name", "x", "--freeze", wrong)
        except SystemExit as stop:
            code, err = stop.code, capsys.readouterr().err
        assert code == 2 and message in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "named, kept",
    [
        (["ape", "bee"], True), ('["ape", "bee"]', True), (["bee", "ape"], False), (["ape", "cat"], False),
        ("ape", False), (None, False), ("[" * 10_000, False),
    ],
)  # fmt: skip
def test_fc8_is_kept_where_its_classes_are_the_same(tmp_path, capsys, named, kept):
    before, after = AlexNet(2, widths=NARROW), AlexNet(2, widths=NARROW)
    checkpoint.save(tmp_path / "w", before.state_dict(), {} if named is None else {"classes": named})
    old = after.state_dict()["fc8.weight"].copy()
    given = first_weights(tmp_path / "w", PRESETS["paper"], 0.5)
    anew = alexnet_imagenet.begin_with(after, tmp_path / "w", ("ape", "bee"), given)
    new, told = after.state_dict(), capsys.readouterr().out
    assert anew == (set() if kept else {"fc8"}) and ("these begin anew: fc8.weight, fc8.bias" in told) != kept
    assert np.array_equal(new["fc8.weight"], before.state_dict()["fc8.weight"] if kept else old)
    assert np.array_equal(new["fc7.weight"], before.state_dict()["fc7.weight"])


def test_lists_of_layers():
    assert layer_list("conv1-conv3") == ("conv1", "conv2", "conv3")
    assert layer_list("fc8,conv2 , conv4-conv5") == ("conv2", "conv4", "conv5", "fc8")


# ---------------------------------------------------------------- the original's schedule


@pytest.mark.parametrize("epochs", [93, 31])
def test_the_schedule_of_the_run_behind_the_paper(epochs):
    net = AlexNet(3, "original", ("cpu:0", "cpu:1"), widths=NARROW)
    optimizer = optim.SGD(list(net.parameter_groups(0.01, 5e-4, {"conv1": (0.01, 5e-4)})), 0.01)
    loader = SimpleNamespace(transform=None)
    views = SimpleNamespace(model=net, train_view=lambda noise: noise)
    recipe = Recipe(0.01, 128, epochs, "original")
    schedule = alexnet_imagenet.OriginalSchedule(views, loader, optimizer, recipe)
    seen = {}
    for epoch in range(1, epochs + 1):
        schedule.begin(epoch)
        rates = [group["lr"] for group in optimizer.param_groups]
        frozen = not net.columns[1].conv1.weight.requires_grad
        seen[(epoch - 1) * 93 // epochs + 1] = (*rates, loader.transform, frozen)
        assert schedule.step(0.5) is False
    assert list(seen)[0] == 1 and seen[1] == pytest.approx((0.01, 0.02, 0.01, 0.02, 0.1, False))
    for first, expected in {
        23: (1e-3, 2e-3, 1e-3, 2e-3, 0.1, False),
        51: (1e-4, 2e-4, 1e-4, 2e-4, 0.1, False),
        68: (1e-4, 2e-4, 1e-5, 2e-5, 0.0, False),
        72: (1e-4, 2e-4, 1e-5, 2e-5, 0.0, True),
        78: (1e-5, 2e-5, 1e-5, 2e-5, 0.0, True),
    }.items():
        then = next(epoch for epoch in seen if epoch >= first)
        before = max(epoch for epoch in seen if epoch < first)
        assert seen[then] == pytest.approx(expected) and seen[before] != pytest.approx(expected), first


def test_the_original_schedule_in_the_program(tmp_path, capsys):
    data = coloured_classes(tmp_path / "data", 2, 1)
    options = ["--data", data, "--out", tmp_path, "--batch-size", 3, "--no-figures", "--devices", "cpu:0"]
    code, out, err = main(capsys, *options, "--name", "r", "--schedule", "original", "--epochs", 4, "--lr", 0.001)
    assert code == 0, err
    rows = [line.split(",") for line in (tmp_path / "r" / "log.csv").read_text().splitlines()[1:]]
    rates = [float(row[4]) for row in rows if row[0] == "train"]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5])
