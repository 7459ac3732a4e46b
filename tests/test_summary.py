"""minigrad.summary: its figures against torchinfo's, against sums done by hand, and the model left as it was."""

import importlib
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, ShapeError, Tensor, nn


def layers(library):
    """A net that both libraries can make, with what is easily miscounted: groups, a layer that is used twice."""
    shared = library.Linear(12, 12)
    return [
        library.Conv2d(3, 8, 5, stride=2, padding=1),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(8, 12, (3, 1), groups=4, bias=False),
        library.Tanh(),
        library.AvgPool2d(2),
        library.Flatten(),
        library.Linear(12 * 2 * 3, 12),
        shared,
        library.Dropout(0.5),
        shared,
        library.Linear(12, 5, bias=False),
    ]


SHAPE = (4, 3, 26, 28)
# What torchinfo 1.8.0 says of these layers in PyTorch 2.13, for this shape: parameters, those trained, multiply-adds,
# bytes of parameters, and of forward and backward pass.  (It adds 64 bytes to the input, what Python takes for it.)
TORCHINFO = 1772, 1164, 391296, 7088, 50464


def frozen(net):
    """The first convolution is not trained."""
    for parameter in next(iter(net)).parameters():
        parameter.requires_grad_(False)
    return net


def ours():
    s = minigrad.summary(frozen(nn.Sequential(*layers(nn))), SHAPE)
    assert s.input_bytes == 4 * 4 * 3 * 26 * 28
    return s.parameters, s.trainable, s.multiply_adds, s.parameter_bytes, s.pass_bytes


def test_the_figures_are_those_that_torchinfo_gives():
    assert ours() == TORCHINFO


def test_torchinfo_where_it_is_installed():
    torch = pytest.importorskip("torch", reason="torchinfo needs PyTorch")
    torchinfo = pytest.importorskip("torchinfo", reason="it is the oracle")
    theirs = torchinfo.summary(frozen(torch.nn.Sequential(*layers(torch.nn))), SHAPE, verbose=0)
    facts = theirs.total_params, theirs.trainable_params, theirs.total_mult_adds
    assert ours() == (*facts, theirs.total_param_bytes, theirs.total_output_bytes)


@pytest.fixture(scope="module")
def alexnet():
    examples = str(Path(__file__).parent.parent / "examples")
    sys.path.insert(0, examples)
    yield importlib.import_module("alexnet")
    sys.path.remove(examples)


def test_both_columns_of_alexnet(alexnet):
    """Batch 2, narrow: each layer's weights, times the places where they are used, and its biases."""
    widths = (3, 4, 5, 6, 7, 8, 9)
    s = minigrad.summary(alexnet.AlexNet(10, widths=widths), (2, 3, 224, 224))
    n1, n2, n3, n4, n5, n6, n7 = widths
    sizes = {  # weights of each unit, units, places
        "conv1": (3 * 11 * 11, n1, 55 * 55), "conv2": (n1 * 25, n2, 27 * 27), "conv3": (2 * n2 * 9, n3, 13 * 13),
        "conv4": (n3 * 9, n4, 13 * 13), "conv5": (n4 * 9, n5, 13 * 13), "fc6": (2 * n5 * 36, n6, 1),
        "fc7": (2 * n6, n7, 1), "fc8": (2 * n7, 10, 1),
    }  # fmt: skip
    by_name = {layer.name: layer for layer in s.layers}
    for i, name in [(0, name) for name in sizes] + [(1, name) for name in list(sizes)[:-1]]:
        weights, units, places = sizes[name]
        layer = by_name[f"columns.{i}.{name}"]
        assert layer.parameters == layer.trainable == (weights + 1) * units
        assert layer.multiply_adds == 2 * (weights + 1) * units * places
        side = int(places**0.5)
        assert layer.outputs == ((2, units, side, side) if name.startswith("conv") else (2, units),)
        assert (layer.device, layer.calls) == (f"cpu:{i}", 1)
    assert by_name[""].outputs == ((2, 10),) and by_name["columns.1"].calls == 0
    assert s.parameters == sum(layer.parameters for layer in s.layers)
    assert s.total_bytes == 4 * s.parameters + 4 * 2 * 3 * 224 * 224 + s.pass_bytes


class Odd(nn.Module):
    """Two arguments, several outputs, a weight in a dict, a part that is not used, and one that is used three times."""

    def __init__(self):
        self.blocks = [{"first": nn.Linear(4, 3)}]
        self.held = {"w": nn.Parameter(np.ones((3, 2), np.float32))}
        self.unused, self.relu = nn.Linear(2, 2), nn.ReLU()

    def forward(self, a, b):
        x = self.relu(self.relu(self.relu(self.blocks[0]["first"](a))))
        return {"y": x @ self.held["w"], "rest": [b, x]}


def test_what_is_no_plain_row_of_layers():
    s = minigrad.summary(Odd(), (5, 4), Tensor(np.zeros(7, np.int64)))
    root, first, unused, relu = s.layers
    assert root == ("", "Odd", 1, ((5, 2), (7,), (5, 3)), "cpu:0", 6, 6, 5 * 3 * 2)
    assert first[:4] == ("blocks.0.first", "Linear", 1, ((5, 3),)) and first.multiply_adds == 5 * 4 * 3 + 5 * 3
    assert (unused.calls, unused.outputs, unused.parameters, relu.calls) == (0, (), 6, 3)
    assert s.input_bytes == 5 * 4 * 4 + 7 * 8
    assert s.pass_bytes == 2 * 4 * (5 * 3 + 5 * 2)  # of the layer, and of the product with the weight in a dict
    assert str(s).splitlines()[:5] == [
        "layer                     output            parameters  multiply-adds",
        "Odd                       5 x 2, 7, 5 x 3            6             30",
        "  blocks.0.first: Linear  5 x 3                     15             75",
        "  unused: Linear          not called                 6",
        "  relu: ReLU              5 x 3  (3 times)",
    ]


class Held(nn.Module):
    """Weights in lists of its own."""

    def __init__(self):
        self.pairs = [[nn.Parameter([1.0, 2.0])], [nn.Parameter([3.0]), nn.Linear(1, 1)]]

    def forward(self, x):
        return x * self.pairs[0][0] + self.pairs[1][0]


def test_weights_in_lists_belong_to_the_module_that_has_the_lists():
    s = minigrad.summary(nn.Sequential(first=nn.ReLU(), held=Held()), (3, 2))
    assert [(layer.name, layer.parameters) for layer in s.layers] == [
        ("", 0),
        ("first", 0),
        ("held", 3),
        ("held.pairs.1.1", 2),
    ]
    assert str(s).splitlines()[4].startswith("    pairs.1.1: Linear  not called")
    assert "  \\x1b[31m: ReLU" in str(minigrad.summary(nn.Sequential({"\x1b[31m": nn.ReLU()}), (1,)))


def test_the_table():
    net = nn.Sequential(conv=nn.Conv2d(1, 2, 3), flat=nn.Flatten(), out=nn.Linear(8, 3))
    net.conv.bias.requires_grad_(False)
    net.out.weight.requires_grad_(False)
    net.out.bias.requires_grad_(False)
    expected = """\
layer           output         parameters     multiply-adds
Sequential      1 x 3
  conv: Conv2d  1 x 2 x 2 x 2  20 (18 trained)             80
  flat: Flatten 1 x 8
  out: Linear   1 x 3             27 (frozen)             27"""
    text = str(minigrad.summary(net, (1, 1, 4, 4)))
    assert [line.split() for line in text.splitlines()[:5]] == [line.split() for line in expected.splitlines()]
    assert text.splitlines()[6:] == [
        "parameters     47, 29 of them frozen",
        "multiply-adds  107",
        "memory         about 340 bytes: input 64 bytes, parameters 188 bytes, layers' outputs and gradients 88 bytes",
    ]


def test_the_model_and_the_random_numbers_are_left_as_they_were():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    net[2].eval()
    before, state = [m.training for m in net.modules()], minigrad.get_rng_state()
    values = {name: value.copy() for name, value in net.state_dict().items()}
    np_state = np.random.get_state()[1].copy()
    first, second = (str(minigrad.summary(net, (4, 3))) for _ in range(2))
    assert first == second and [m.training for m in net.modules()] == before == [True, True, True, False]
    assert str(minigrad.get_rng_state()) == str(state) and (np.random.get_state()[1] == np_state).all()
    assert all((value == values[name]).all() for name, value in net.state_dict().items())
    with pytest.raises(ShapeError):
        minigrad.summary(net, (4, 5))
    assert [m.training for m in net.modules()] == before and not any("_has_hooks" in vars(m) for m in net.modules())
    assert minigrad.tools.tracing.recorder is None
    assert str(minigrad.summary(net, (4, 3))) == first


def test_each_run_sees_the_same_numbers_leaves_no_graph_and_takes_devices_in_turn(alexnet):
    net, seen = alexnet.AlexNet(10, widths=(1, 1, 1, 1, 1, 2, 2)), []

    def note(module, args, output):
        seen.append((args[0].numpy().copy(), output.requires_grad, threading.current_thread()))

    handles = [net.columns[i].conv1.register_forward_hook(note) for i in (0, 1)]
    for _ in range(2):
        minigrad.summary(net, (1, 3, 224, 224))
    assert len(seen) == 4 and all((values == seen[0][0]).all() for values, _, _ in seen)
    assert 0 <= seen[0][0].min() < 0.01 and 0.99 < seen[0][0].max() < 1
    assert {(graph, thread) for _, graph, thread in seen} == {(False, threading.current_thread())}
    for handle in handles:
        handle.remove()


def test_a_model_in_chunks_is_shown_whole():
    class Chunked(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return minigrad.in_chunks(self.conv, x, size=1)

    minigrad.set_num_threads(2)
    conv = minigrad.summary(Chunked(), (4, 3, 5, 5)).layers[1]
    assert (conv.calls, conv.outputs, conv.multiply_adds) == (1, ((4, 2, 3, 3),), 4 * 2 * 9 * 28)


def test_dtype_and_device_of_the_inputs_are_the_model_s_and_profile_goes_around():
    net, seen = nn.Linear(3, 2, device="cpu:1", dtype="float64"), []
    with net.register_forward_pre_hook(lambda m, args: seen.append((args[0].dtype, str(args[0].device)))):
        with minigrad.profile() as prof:
            s = minigrad.summary(net, (4, 3))
    assert seen == [(np.dtype("float64"), "cpu:1")] and s.input_bytes == 4 * 3 * 8
    assert [row.name for row in prof.summary()] == ["linear"]


@pytest.mark.parametrize(
    "given, match",
    [
        ((), r"summary: give for each argument of forward its shape, batch included, or a Tensor: summary\(net, "),
        ((3,), "or a Tensor, got int 3"),
        (("x",), "or a Tensor, got str 'x'"),
        (((2, -1),), "summary: shape: a side must be an integer >= 0, got -1"),
        (((2, 1.5),), "a side must be an integer >= 0, got 1.5"),
    ],
)
def test_what_is_no_shape_is_refused(given, match):
    with pytest.raises(ArgumentError, match=match):
        minigrad.summary(nn.Linear(2, 2), *given)


def test_what_is_no_module_is_refused():
    with pytest.raises(ArgumentError, match="summary: model must be a Module, got function"):
        minigrad.summary(F.relu, (1, 2))
