"""The example net: its size, the proof that two devices compute what one computes, and PyTorch on the same weights."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor, optim
from minigrad.engine import Function
from minigrad.errors import ArgumentError, CheckpointError

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from alexnet import PRESETS, WIDTHS, AlexNet, main_directions, merged  # noqa: E402
from command_line import device_list, one_device  # noqa: E402

TWO, ONE = ("cpu:0", "cpu:1"), ("cpu:0",)
TWO_COLUMNS = [name for name, preset in PRESETS.items() if preset.columns == 2]
NARROW = (6, 8, 12, 12, 8, 40, 40)  # the same net, small enough for many steps


@pytest.fixture(scope="module")
def full():
    """The full net on two devices, built once: 61 million parameters."""
    minigrad.manual_seed(0)
    return AlexNet()


@pytest.fixture(scope="module")
def full_state(full):
    return full.state_dict()


def images(n, size=224, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, size, size)).astype(dtype)


def pair_of_nets(preset, widths=NARROW, **options):
    """The same weights on two devices and on one."""
    two = AlexNet(10, preset, TWO, widths=widths, dropout=0.0, dtype="float64", **options)
    one = AlexNet(10, preset, ONE, widths=widths, dropout=0.0, dtype="float64", **options)
    state = weights_that_matter(one)
    two.load_state_dict(state)
    one.load_state_dict(state)
    return two, one


def weights_that_matter(net):
    """Larger than the paper's 0.01, so that every layer has its part in what is compared."""
    rng = np.random.default_rng(1)
    return {
        name: rng.standard_normal(a.shape) * (0.1 if a.ndim == 1 else np.sqrt(2 / a[0].size))
        for name, a in net.state_dict().items()
    }


def gradients(net):
    return merged([{name: p.grad.numpy() for name, p in column.named_parameters()} for column in net.columns])


def step(net, x, target, optimizer=None):
    loss = F.cross_entropy(net(Tensor(x)), target)
    if optimizer is not None:
        optimizer.zero_grad()
    loss.backward()
    if optimizer is not None:
        optimizer.step()
    return loss.item()


def assert_same(ours, theirs, what, tolerance=1e-9):
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = np.abs(theirs[name]).max()
        assert scale > 0, f"{what} {name} is all zero: nothing is compared"
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance * scale, err_msg=f"{what} {name}")


def test_parameter_count_is_that_of_the_paper(full, full_state):
    assert full.num_parameters() == 60_965_224
    per_layer = {name: 0 for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")}
    for name, array in full_state.items():
        per_layer[name.split(".")[0]] += array.size
    assert per_layer == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
        "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
    }  # fmt: skip


def test_state_dict_has_the_one_device_form(full_state):
    shapes = {name: array.shape for name, array in full_state.items() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (96, 3, 11, 11), "conv2.weight": (256, 48, 5, 5), "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3), "conv5.weight": (256, 192, 3, 3), "fc6.weight": (4096, 9216),
        "fc7.weight": (4096, 4096), "fc8.weight": (1000, 4096),
    }  # fmt: skip


def test_each_column_lives_on_its_device(full):
    assert [{str(p.device) for p in column.parameters()} for column in full.columns] == [{"cpu:0"}, {"cpu:1"}]
    assert not hasattr(full.columns[1], "fc8")


def test_paper_initialization(full_state):
    for name, array in full_state.items():
        layer, kind = name.split(".")
        if kind == "bias":
            assert np.all(array == (1 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0)), name
        else:
            assert abs(array.std() / 0.01 - 1) < 0.02 and abs(array.mean()) < 1e-3, name


def test_original_initialization():
    state = AlexNet(50, "original", ONE, widths=tuple(width // 4 for width in WIDTHS)).state_dict()
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        std = 0.03 if layer in ("conv3", "conv4", "conv5") else 0.01
        assert abs(state[f"{layer}.weight"].std() / std - 1) < 0.02, layer


def test_the_first_kernels_of_trainable_see_98_percent_of_what_varies():
    """Against a singular value decomposition of all windows, gathered one by one."""
    smooth = np.exp(-0.5 * np.subtract.outer(range(224), range(224)) ** 2 / 2.5**2)
    photographs = smooth @ np.random.default_rng(0).standard_normal((1, 3, 224, 224)) @ smooth.T
    corners = range(0, 224 - 10, 4)
    windows = [p[:, i : i + 11, j : j + 11].ravel() for p in photographs for i in corners for j in corners]
    _, lengths, directions = np.linalg.svd(np.array(windows), full_matrices=False)
    held = np.cumsum(lengths**2) / np.sum(lengths**2)
    count = int(np.argmax(held >= 0.98)) + 1
    shown = main_directions(photographs, 11, 4, 0.98)
    assert 5 < count < 60 and shown.shape == (count, 363)
    np.testing.assert_allclose(shown.T @ shown, directions[:count].T @ directions[:count], atol=1e-8)

    for devices in (ONE, TWO):
        minigrad.manual_seed(5)
        net = AlexNet(5, "trainable", devices, widths=NARROW, dtype="float64")
        noise = net.state_dict()
        net.fit_to(Tensor(photographs), ("fc7",))
        assert np.array_equal(net.state_dict()["conv1.weight"], noise["conv1.weight"]), "only what is asked for"
        net.fit_to(Tensor(photographs))
        kernels = net.state_dict()["conv1.weight"].reshape(-1, 363)
        wanted = noise["conv1.weight"].reshape(-1, 363) @ shown.T @ shown
        scales = np.linalg.norm(kernels, axis=1) / np.linalg.norm(wanted, axis=1)
        np.testing.assert_allclose(kernels, scales[:, None] * wanted, atol=1e-9 * np.abs(kernels).max())


def test_the_first_kernels_see_edges_where_nearly_all_that_varies_is_brightness():
    waves = 128 + 60 * np.sin(np.arange(224) / 60)
    smooth = np.broadcast_to(waves, (1, 3, 224, 224)) - waves.mean()  # a wave from left to right, grey
    shown = main_directions(smooth, 11, 4, 0.98)
    slope = np.broadcast_to(np.arange(-5.0, 6.0), (3, 11, 11)).ravel()
    assert shown.shape == (9, 363)
    assert np.linalg.norm(shown @ slope) > 0.999 * np.linalg.norm(slope)
    assert np.linalg.norm(shown[:1] @ slope) < 0.1 * np.linalg.norm(slope), "what alone holds 98 % is brightness"


@pytest.mark.parametrize("preset", TWO_COLUMNS)
@pytest.mark.parametrize("size", [224, 227])
def test_two_devices_compute_what_one_computes(preset, size):
    two, one = pair_of_nets(preset, input_size=size)
    x, target = images(3, size), np.array([1, 7, 3])
    for net in (two, one):
        step(net, x, target)
    a, b = two(Tensor(x)).numpy(), one(Tensor(x)).numpy()
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())
    assert_same(gradients(two), gradients(one), "gradient of")


@pytest.mark.parametrize(
    "preset, devices",
    [
        *((preset, devices) for preset in TWO_COLUMNS for devices in (("textbook:0",), ("textbook:0", "textbook:1"))),
        ("torchvision", ("textbook:0",)),
    ],
)
def test_the_textbook_faces_train_as_the_fast_ones_do(preset, devices):
    """Logits, all gradients and one step of SGD, dropout on: textbook:N draws the masks that cpu:N draws."""
    x, target = images(3), np.array([1, 7, 3])
    seen = []
    for places in (devices, [name.replace("textbook", "cpu") for name in devices]):
        net = AlexNet(10, preset, places, widths=NARROW, dropout=0.5, dtype="float64")
        net.load_state_dict(weights_that_matter(net))
        optimizer = optim.SGD(list(net.parameter_groups(0.01, 0.0005)), 0.01, momentum=0.9, update_rule="alexnet")
        minigrad.manual_seed(3)
        logits = net(Tensor(x, device=places[0]))
        F.cross_entropy(logits, target).backward()
        grads = gradients(net)
        optimizer.step()
        seen.append(({"logits": logits.numpy()}, grads, net.state_dict()))
    for what, ours, theirs in zip(("", "gradient of", "after the step:"), *seen):
        assert_same(ours, theirs, what, tolerance=1e-12)


def test_the_textbook_starts_from_the_same_weights():
    states = []
    for device in ("cpu:0", "textbook:0"):
        minigrad.manual_seed(4)
        states.append(AlexNet(10, "paper", (device,), widths=NARROW).state_dict())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_the_programs_take_textbook_devices():
    assert device_list("textbook:0,textbook:1") == ("textbook:0", "textbook:1")
    assert one_device("textbook") == "textbook:0"


def test_each_device_copies_what_it_reads(monkeypatch):
    """The copy where the columns cross is made by the worker that reads it: neither column waits for the other's."""
    copies = []
    to = Tensor.to

    def noted(tensor, device):
        copies.append((str(tensor.device), str(device), threading.current_thread().name.split("_")[0]))
        return to(tensor, device)

    monkeypatch.setattr(Tensor, "to", noted)
    net = AlexNet(10, "paper", TWO, widths=NARROW)
    net.features(Tensor(images(1, dtype="float32")))
    at = {name: f"minigrad {name}" for name in TWO}
    crossings = [(half, reader, at[reader]) for reader in TWO for half in TWO]
    assert sorted(copies) == sorted([("cpu:0", reader, at[reader]) for reader in TWO] + 3 * crossings)


@pytest.mark.parametrize("devices", [ONE, TWO], ids=["one", "two"])
def test_convolutions_take_a_few_images_at_a_time_and_the_rest_the_whole_batch(devices, monkeypatch):
    monkeypatch.setattr(minigrad.processor.chunks, "CHUNK_BYTES", 1)
    monkeypatch.setattr(minigrad.processor.chunks, "LEAST_BYTES", 1)
    net = AlexNet(10, "paper", devices, widths=NARROW)
    ahead, names = [net(Tensor(images(4, dtype="float32"))).node], {}
    while ahead:
        node = ahead.pop()
        if isinstance(node, Function) and node not in names:
            names[node] = node.name
            ahead += node.inputs
    columns = len(devices)
    assert {name: list(names.values()).count(name) for name in ("in_chunks", "conv2d", "linear", "dropout")} == {
        "in_chunks": 2 * columns,  # conv1 and conv2; conv3 to conv5
        "conv2d": 0,  # all inside
        "linear": 2 * columns + 1,
        "dropout": 2 * columns,
    }
    # The halves are set side by side chunk by chunk before conv3, and for the whole batch before fc6, fc7 and fc8.
    assert list(names.values()).count("concat") == (5 if columns == 2 else 0)


@pytest.mark.parametrize("rule", ["alexnet", "pytorch"])
def test_ten_sgd_steps_on_two_devices_and_on_one(rule):
    two, one = pair_of_nets("paper")
    losses = []
    for net in (two, one):
        optimizer = optim.SGD(list(net.parameter_groups(0.01, 0.0005)), 0.01, momentum=0.9, update_rule=rule)
        losses.append([step(net, images(2, seed=i), np.arange(2) + i % 3, optimizer) for i in range(10)])
    np.testing.assert_allclose(*losses, rtol=1e-9)
    assert len({round(loss, 6) for loss in losses[0]}) > 5, "the steps must change the loss"
    assert_same(two.state_dict(), one.state_dict(), "after ten steps")


@pytest.mark.slow
def test_the_split_at_full_size():
    two, one = pair_of_nets("paper", WIDTHS)
    optimizers = [
        optim.SGD(list(net.parameter_groups(0.001, 0.0005)), 0.001, momentum=0.9, update_rule="alexnet")
        for net in (two, one)
    ]
    for i in range(10):
        x, target = images(2, seed=i), np.array([i % 10, 3])
        a, b = (step(net, x, target, optimizer) for net, optimizer in zip((two, one), optimizers))
        assert a == pytest.approx(b, rel=1e-9)
        if i == 0:
            assert_same(gradients(two), gradients(one), "gradient of")
    assert_same(two.state_dict(), one.state_dict(), "after ten steps")


def test_response_normalization_does_not_cross_the_columns():
    """A change in the other column's maps must not reach a column before the two talk."""
    two, _ = pair_of_nets("paper")
    x = Tensor(images(1))
    before = two.columns[0].conv1_to_2(x).numpy().copy()
    with minigrad.no_grad():
        two.columns[1].conv1.weight[...] = 5.0
    np.testing.assert_array_equal(two.columns[0].conv1_to_2(x).numpy(), before)
    one = AlexNet(10, "paper", ONE, widths=NARROW, dtype="float64")
    with minigrad.no_grad():
        one.columns[0].conv1.weight.copy_(np.ones(one.columns[0].conv1.weight.shape))
        reference = one.columns[0].conv1_to_2(x).numpy().copy()
        one.columns[0].conv1.weight[NARROW[0] :] = 5.0  # the second column's kernels
        changed = one.columns[0].conv1_to_2(x).numpy()
    np.testing.assert_array_equal(changed[:, : NARROW[1]], reference[:, : NARROW[1]])
    assert np.abs(changed[:, NARROW[1] :] - reference[:, NARROW[1] :]).max() > 1e-6


def torch_net(torch, state, x, preset, size):
    """The grouped net from PyTorch's own ops, float64, following the fact tables: paper and trainable."""
    f = torch.nn.functional
    w = {name: torch.tensor(array, requires_grad=True) for name, array in state.items()}

    def lrn(h):
        halves = h.chunk(2, dim=1)  # PyTorch divides alpha by n
        return torch.cat([f.local_response_norm(half, 5, alpha=5e-4, beta=0.75, k=2.0) for half in halves], dim=1)

    def conv(name, h, **kw):
        return f.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **kw)

    h = f.pad(torch.tensor(x), (0, 227 - size, 0, 227 - size))
    h = f.max_pool2d(lrn(f.relu(conv("conv1", h, stride=4))), 3, 2)
    h = f.max_pool2d(lrn(f.relu(conv("conv2", h, padding=2, groups=2))), 3, 2)
    h = f.relu(conv("conv3", h, padding=1))
    h = f.relu(conv("conv4", h, padding=1, groups=2))
    h = f.max_pool2d(f.relu(conv("conv5", h, padding=1, groups=2)), 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        h = f.relu(f.linear(h, w[f"{name}.weight"], w[f"{name}.bias"]))
    return f.linear(h, w["fc8.weight"], w["fc8.bias"]), w


@pytest.mark.parametrize("size", [224, 227])
def test_against_pytorch_with_the_same_weights(size):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    two, _ = pair_of_nets("paper", input_size=size)
    x, target = images(2, size), np.array([4, 9])
    logits, w = torch_net(torch, two.state_dict(), x, "paper", size)
    torch.nn.functional.cross_entropy(logits, torch.tensor(target)).backward()
    ours = two(Tensor(x))
    np.testing.assert_allclose(ours.numpy(), logits.detach().numpy(), rtol=1e-9, atol=1e-9)
    F.cross_entropy(ours, target).backward()
    assert_same(gradients(two), {name: p.grad.numpy() for name, p in w.items()}, "gradient of")


def test_weights_move_between_one_and_two_devices():
    two, one = pair_of_nets("paper")
    state = {name: array + 1 for name, array in two.state_dict().items()}
    one.load_state_dict(state)
    two.load_state_dict(one.state_dict())
    for name, array in two.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_load_state_dict_lists_what_does_not_fit():
    two, _ = pair_of_nets("paper")
    state = two.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    state["conv9.weight"] = state.pop("conv1.weight")
    state["fc8.bias"] = np.zeros(7)
    with pytest.raises(
        CheckpointError, match=r"(?s)missing: conv1.weight.*wrong shape: fc8.bias is \(7,\).*unexpected: conv9.weight"
    ):
        two.load_state_dict(state)
    for name, array in two.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_dropout_draws_the_same_bits_again_and_not_the_same_on_both_devices():
    net = AlexNet(10, "paper", TWO, widths=NARROW)
    x = Tensor(images(2, dtype="float32"))

    def halves():
        minigrad.manual_seed(5)
        return [half.numpy().copy() for half in net.features(x)]

    first, again = halves(), halves()
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert np.any((first[0] == 0) != (first[1] == 0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"preset": "best"}, "preset must be one of paper, original, trainable, torchvision, got 'best'"),
        ({"devices": ("cpu:0", "cpu:0")}, "one device or two different ones"),
        (
            {"preset": "torchvision", "devices": TWO},
            "preset torchvision is one column, for one device, got .'cpu:0', 'c",
        ),
        ({"devices": "cpu:0"}, "one device or two different ones"),
        ({"devices": ("cpu:0", "cpu:1", "cpu:2")}, "one device or two different ones"),
        ({"input_size": 256}, "input_size must be 224 .* or 227"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ArgumentError, match=message):
        AlexNet(10, widths=NARROW, **options)
