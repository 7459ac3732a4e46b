"""The preset "torchvision": its AlexNet, by its names, on the same pixels; PyTorch and torchvision as oracles."""

import functools
import json
import sys
from pathlib import Path

import narrow
import numpy as np
import pytest
from narrow import coloured_classes, main, narrow_net  # noqa: F401

import minigrad.functional as F
from minigrad import ArgumentError, CheckpointError, Tensor, checkpoint, optim
from minigrad.cudasim import compiler
from minigrad.data import CenterView, ImageFolder, TenViews, TrainViews, compute_stats, prepare_image

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import alexnet  # noqa: E402
import alexnet_imagenet  # noqa: E402
from inputs import Inputs  # noqa: E402
from trained import Trained, with_mean  # noqa: E402
from zoo import first_weights  # noqa: E402

ONE = ("cpu:0",)
WIDTHS = (6, 8, 12, 10, 8, 40, 30)
Narrow = functools.partial(alexnet.AlexNet, preset="torchvision", devices=ONE, widths=WIDTHS, dropout=0.0)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is an oracle where installed")


def as_torchvision_has_it(torch, classes, widths=WIDTHS, p=0.0, dtype="float64"):
    """Its AlexNet from PyTorch's layers, in the order that its names tell, of any width."""
    nn, (n1, n2, n3, n4, n5, n6, n7) = torch.nn, widths
    features = [
        nn.Conv2d(3, n1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(n1, n2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(n2, n3, 3, padding=1), nn.ReLU(), nn.Conv2d(n3, n4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(n4, n5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    classifier = [
        nn.Dropout(p), nn.Linear(n5 * 36, n6), nn.ReLU(), nn.Dropout(p), nn.Linear(n6, n7), nn.ReLU(),
        nn.Linear(n7, classes),
    ]  # fmt: skip
    net = nn.Sequential()
    net.features, net.avgpool = nn.Sequential(*features), nn.AdaptiveAvgPool2d((6, 6))
    net.flatten, net.classifier = nn.Flatten(), nn.Sequential(*classifier)
    return net.to(getattr(torch, dtype))


def as_tensors(torch, state):
    return {name: torch.tensor(array) for name, array in state.items()}


def images(n, size=224, dtype="float64"):
    return np.random.default_rng(0).standard_normal((n, 3, size, size)).astype(dtype)


@pytest.mark.parametrize("size", [224, 227])
def test_logits_gradients_and_a_step_are_pytorch_s(torch, size):
    torch.manual_seed(0)
    theirs, ours = as_torchvision_has_it(torch, 5), Narrow(5, input_size=size, dtype="float64")
    assert ours.load_state_dict(theirs.state_dict()) == ([], [], [])
    x, target = images(3, size), np.array([4, 0, 2])
    a, b = ours(Tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12)
    F.cross_entropy(a, target).backward()
    torch.nn.functional.cross_entropy(b, torch.tensor(target)).backward()
    gradients = {ours.outside(name.split(".", 2)[2]): p.grad.numpy() for name, p in ours.named_parameters()}
    optim.SGD(list(ours.parameter_groups(0.1, 0.01)), 0.1).step()
    torch.optim.SGD(theirs.parameters(), 0.1, weight_decay=0.01).step()
    back = as_torchvision_has_it(torch, 5)
    back.load_state_dict(as_tensors(torch, ours.state_dict()))  # strict: the same names
    for (name, p), (again, q) in zip(theirs.named_parameters(), back.named_parameters()):
        assert name == again and p.grad.abs().max() > 0
        np.testing.assert_allclose(gradients[name], p.grad.numpy(), rtol=0, atol=1e-9 * float(p.grad.abs().max()))
        np.testing.assert_allclose(q.detach().numpy(), p.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_dropout_stands_before_fc6_and_fc7(monkeypatch):
    seen = []

    def noted(x, p, training, form):
        seen.append((x.shape, p, training, form))
        return x

    monkeypatch.setattr(F, "dropout", noted)
    net = Narrow(5, dropout=0.3)
    net(Tensor(images(2, dtype="float32")))
    net.eval()(Tensor(images(2, dtype="float32")))
    assert seen == [(shape, 0.3, mode, "inverted") for mode in (True, False) for shape in ((2, 288), (2, 40))]


@pytest.mark.slow
def test_the_net_at_full_size_is_that_of_torchvision(torch):
    """Its own class where torchvision is installed, else the same layers: made-up weights go there and back."""
    torch.manual_seed(0)
    try:
        from torchvision.models import alexnet as made
    except ImportError:
        made = functools.partial(
            as_torchvision_has_it, torch, 1000, alexnet.PRESETS["torchvision"].widths, dtype="float32"
        )
    theirs, ours = made(), alexnet.AlexNet(1000, "torchvision")
    assert ours.devices == ("cpu:0",) and ours.num_parameters() == 61_100_840
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: array.shape for name, array in ours.state_dict().items()} == shapes and len(shapes) == 16
    ours.load_state_dict(theirs.state_dict())
    x = images(2, dtype="float32")
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(x)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours.eval()(Tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    doubled = {name: 2 * array for name, array in ours.state_dict().items()}
    theirs.load_state_dict(as_tensors(torch, doubled))
    for name, value in theirs.state_dict().items():
        assert value.numpy().tobytes() == doubled[name].tobytes()


def test_layers_by_any_name():
    net = Narrow(5)
    for layer, theirs in alexnet.TORCHVISION.items():
        assert net.layer_of(f"{theirs}.weight") == layer == net.layer_of(f"columns.0.{layer}.bias")
    assert net.layer_of("features.1.weight") == "1" and net.layer_of("x") == ""
    net.freeze(["conv1", "fc7"])
    assert [net.layer_of(name) for name, p in net.named_parameters() if not p.requires_grad] == 2 * ["conv1"] + 2 * [
        "fc7"
    ]
    with pytest.raises(CheckpointError, match=r"(?s)missing: features.0.weight .*unexpected: conv1.weight"):
        net.load_state_dict(alexnet.AlexNet(5, "paper", ONE, widths=WIDTHS).state_dict())


# ---------------------------------------------------------------- the pixels that it sees


def normalised(pixels):
    """torchvision's ToTensor and Normalize, in float64, channels last."""
    return (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def test_it_sees_the_pixels_that_torchvision_makes():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    preset = alexnet.PRESETS["torchvision"]
    mean, scale = np.array(preset.mean_rgb, np.float32), preset.pixel_scale
    middle = normalised(image[16:240, 16:240])
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
    near(CenterView(224, mean, scale)(image), middle)
    near(CenterView(None, mean, scale)(image), normalised(image))
    views = TenViews(224, mean, scale)(image)
    near(views[4], middle)
    near(views[9], middle[:, ::-1])
    near(views[8], normalised(image[32:, 32:])[:, ::-1])
    view = TrainViews(256, mean, None, 0, scale)(image, np.random.default_rng(0))
    near(view, normalised(image)[:, :: 1 if abs(view[0, 0] - normalised(image)[0, 0]).max() < 1e-5 else -1])
    with pytest.raises(ArgumentError, match=r"scale: one number, or one for each of 3 colours, got \(1, 2\)"):
        CenterView(224, mean, (1, 2))(image)


def test_a_file_of_torchvision_s_weights_predicts_as_pytorch_does(torch, tmp_path):
    torch.manual_seed(0)
    theirs = as_torchvision_has_it(torch, 4, narrow.NARROW, dtype="float32").eval()
    checkpoint.save(tmp_path / "weights.safetensors", theirs.state_dict())
    told = []
    net = Trained.restore(tmp_path / "weights.safetensors", "trainable", ("cpu:1", "cpu:0"), told.append)
    assert net.preset == "torchvision" and net.device == "cpu:1" and not told and len(net.classes) == 4
    picture = coloured_classes(tmp_path, 1, 0, ["ape"], size=lambda i: (300, 260)) / "train" / "ape" / "0.png"
    image = prepare_image(picture)
    x = torch.tensor(normalised(image)[16:240, 16:240].transpose(2, 0, 1)[None].astype("f"))
    with torch.no_grad():
        expected = torch.softmax(theirs(x), 1).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(net.probabilities([image], ten=False), expected, rtol=1e-4)


# ---------------------------------------------------------------- the program


def test_the_program_trains_it_from_weights_of_torchvision(torch, tmp_path, capsys):
    """--init with seven classes, three here; what it saves loads there; resume, predict, evaluate."""
    torch.manual_seed(0)
    theirs = as_torchvision_has_it(torch, 7, narrow.NARROW, dtype="float32")
    checkpoint.save(tmp_path / "tv.safetensors", theirs.state_dict())
    data = coloured_classes(tmp_path / "data", 3, 1)
    given = ["--data", data, "--out", tmp_path, "--batch-size", 3, "--no-figures", "--preset", "torchvision"]
    init = ["--init", tmp_path / "tv.safetensors", "--freeze", "conv1-conv5"]
    code, out, err = main(capsys, *given, *init, "--name", "a", "--steps", 2)
    assert code == 0, err
    assert "preset torchvision, on cpu:0:" in out
    assert "these begin anew: classifier.6.weight, classifier.6.bias (fc8, as the weights" in out
    weights = first_weights(init[1], alexnet.PRESETS["torchvision"], 0.5)
    anew = alexnet_imagenet.begin_with(Narrow(3, widths=narrow.NARROW), init[1], ["ape"], weights)
    assert anew == {"fc8"}  # which is fitted anew
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["preset"] == "torchvision" and config["devices"] == ["cpu:0"]
    state, facts = checkpoint.load(tmp_path / "a" / "weights.safetensors")
    assert facts["preset"] == "torchvision"
    again = as_torchvision_has_it(torch, 3, narrow.NARROW, dtype="float32")
    again.load_state_dict(as_tensors(torch, state))
    for name, value in theirs.state_dict().items():
        trained_on = name.startswith("classifier")
        same = value.shape == state[name].shape and value.numpy().tobytes() == state[name].tobytes()
        assert same != trained_on, name
    code, out, err = main(capsys, "--resume", tmp_path / "a", "--steps", 4)
    assert code == 0 and "going on after step 2 of 4" in out, err
    weights = tmp_path / "a" / "weights.safetensors"
    code, out, err = main(capsys, "--predict", weights, data / "val" / "ape" / "0.png", "--json")
    assert code == 0, err
    ten = Trained.restore(weights, "paper", ONE)
    image = prepare_image(data / "val" / "ape" / "0.png")
    (found,) = json.loads(out)
    assert ten.stats.mean_image.tolist() == np.float32(alexnet.PRESETS["torchvision"].mean_rgb).tolist()
    assert max(ten.probabilities([image])[0]) == pytest.approx(max(found["classes"].values()), rel=1e-4)
    code, out, err = main(capsys, "--evaluate", weights)
    assert code == 0 and "top-1" in out, err


def test_the_program_takes_one_device_for_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(capsys, "--preset", "torchvision", "--devices", "cpu:0,cpu:1", "--no-figures")
    assert stop.value.code == 2
    assert "--devices: --preset torchvision is one column: give one device" in capsys.readouterr().err


@pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
@pytest.mark.parametrize("preset, of_a_card", [("torchvision", False), ("trainable", True)])
def test_a_card_gets_views_where_three_numbers_scale_them(tmp_path, preset, of_a_card):
    pictures = ImageFolder(coloured_classes(tmp_path, 1, 1), "train")
    stats = with_mean(compute_stats(pictures), preset)
    made = {}
    for device in ("cpu:0", "cudasim:0"):
        model = alexnet.AlexNet(3, preset, (device,), widths=narrow.NARROW)
        net = Trained(model, preset, pictures.classes, stats)
        batch = next(net.loader(pictures, 3, net.train_view(0.1), seed=1).epoch(0))
        made[device] = Inputs(device)(batch).numpy()
        assert (getattr(batch, "views", None) is not None) == (of_a_card and device != "cpu:0")
    assert made["cpu:0"].tobytes() == made["cudasim:0"].tobytes() and made["cpu:0"].std() > 0.5


def test_the_mean_of_the_other_presets_is_that_of_the_training_set(tmp_path):
    stats = compute_stats(ImageFolder(coloured_classes(tmp_path, 1, 1), "train"))
    assert with_mean(stats, "trainable") is stats and with_mean(stats, "paper") is stats
    other = with_mean(stats, "torchvision")
    assert other.mean_image.tolist() == pytest.approx([123.675, 116.28, 103.53]) and other.pca is stats.pca
