"""minigrad.onnx.export: nets of the examples and one of every op, checked, run by onnxruntime, read again; refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
from narrow import NARROW
from onnx_graphs import onnx, run

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, CheckpointError, DTypeError, GraphError, Tensor, nn, optim
from minigrad.tools import tracing

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from alexnet import PRESETS, AlexNet  # noqa: E402
from lenet import VARIANTS, LeNet5  # noqa: E402


def images(*shape, dtype="f"):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def check(net, x, tmp_path, close=1e-5):
    """Exports with three images and runs on five, elsewhere and read again; the file's ModelProto."""
    path = tmp_path / "net.onnx"
    minigrad.onnx.export(net, x[:3], path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    net.eval()
    with minigrad.no_grad():
        y = net(Tensor(x)).numpy()
        again = minigrad.onnx.load(path)(x).numpy()
    if x.dtype == np.float32:  # onnxruntime computes little in float64
        (elsewhere,) = run(path, x)
    else:
        (elsewhere,) = pytest.importorskip("onnx.reference").ReferenceEvaluator(model).run(None, {"input": x})
    assert y.std() > 1e-3
    for other in (elsewhere, again):
        assert other.shape == y.shape and other.dtype == y.dtype
        np.testing.assert_allclose(other, y, rtol=0, atol=close * max(1, np.abs(y).max()))
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param == "N" and [step.name for step in model.graph.output] == ["output"]
    return model


def names_of(model):
    return {tensor.name for tensor in model.graph.initializer}


# ---------------------------------------------------------------- the examples


@pytest.mark.parametrize(
    "preset, devices",
    [
        *((name, ("cpu:0", "cpu:1")[: preset.columns]) for name, preset in PRESETS.items()),
        ("trainable", ("cpu:0",)),
        ("paper", ("textbook:0", "cpu:0")),
    ],
)
def test_alexnet(preset, devices, tmp_path):
    minigrad.manual_seed(0)
    net = AlexNet(10, preset, devices, widths=NARROW)
    with minigrad.no_grad():
        for parameter in net.parameters():  # the paper's first weights are so small that the picture hardly matters
            parameter *= 3
    x = images(5, 3, 224, 224) * 10
    grouped = net.on_one_device("cpu:0")
    model = check(grouped, x, tmp_path)
    assert names_of(model) == net.state_dict().keys()
    assert [node.op_type for node in model.graph.node].count("Conv") == 5
    if devices == ("cpu:0", "cpu:1"):
        columns = check(net, x, tmp_path)  # two columns that read each other
        assert names_of(columns) == dict(net.named_parameters()).keys()
        assert [n.op_type for n in columns.graph.node].count("Conv") == 10


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_alexnet_in_full(preset, tmp_path):
    net = AlexNet(1000, preset)
    model = check(net.on_one_device(), images(5, 3, 224, 224) * 50, tmp_path)
    count = 61_100_840 if preset == "torchvision" else 60_965_224
    assert sum(np.prod(tensor.dims) for tensor in model.graph.initializer) == count


def test_on_one_device_is_the_same_net():
    net = AlexNet(10, "original", ("cpu:0", "cpu:1"), input_size=227, widths=NARROW, dropout=0.3, dtype="float64")
    grouped = net.on_one_device("cpu:1").eval()
    x = Tensor(images(2, 3, 227, 227, dtype="d"))
    with minigrad.no_grad():
        np.testing.assert_allclose(grouped(x), net.eval()(x), rtol=1e-9)
    assert grouped.devices == ("cpu:1",) and grouped.columns[0].p == 0.3 and grouped.preset is PRESETS["original"]
    again = grouped.on_one_device().state_dict()
    assert all(array.tobytes() == again[name].tobytes() for name, array in grouped.state_dict().items())
    assert not grouped.training and net.train().on_one_device().training


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lenet(variant, dtype, tmp_path):
    net = LeNet5(variant=variant, dtype=dtype)
    model = check(net, images(5, 1, 32, 32, dtype=dtype), tmp_path)
    assert names_of(model) == net.state_dict().keys()
    again = minigrad.onnx.load(tmp_path / "net.onnx")
    assert again.state_dict().keys() == net.state_dict().keys()  # a mask is none of them


# ---------------------------------------------------------------- a net of one's own


class Forward(nn.Module):
    """A module of a function."""

    def __init__(self, function, **members):
        self.function = function
        vars(self).update(members)

    def forward(self, *x):
        return self.function(self, *x)


class Own(nn.Module):
    """Branches, weights used twice, numbers, buffers, names in lists."""

    def __init__(self, dtype="float32"):
        here = {"dtype": dtype}
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=((0, 1), (1, 0)), **here)
        self.norm = nn.BatchNorm2d(8, **here)
        self.blocks = [nn.Conv2d(8, 8, 3, padding=1, groups=2, **here) for _ in range(2)]
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, **here)
        self.out = nn.Linear(8 * 5 * 5, 6, **here)
        self.temperature = nn.Parameter(np.array(2.0), dtype=dtype)
        self.shift = nn.Buffer(np.arange(6.0), dtype=dtype)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = x / 2
        x += 1
        x = F.relu(self.norm(self.stem(x)))
        for block in self.blocks * 2:
            x = x + F.tanh(block(x))
        wide = self.up(x)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
        y = self.out(self.drop(x.flatten(1))) * self.temperature
        return y + self.shift + wide.mean((1, 2, 3))[:, None] + wide[:, [3, 0, 1, 1, 2, 0]][:, :, 2, -1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_net_of_one_s_own(dtype, tmp_path):
    minigrad.manual_seed(0)
    net, x = Own(dtype), images(5, 3, 33, 32, dtype=dtype)
    net(Tensor(x))  # running statistics that are none of the first
    net.blocks[0].eval()
    model = check(net.train(), x, tmp_path)
    again = minigrad.onnx.load(tmp_path / "net.onnx")
    state = {
        name: array for name, array in net.state_dict().items() if name not in ("shift", "norm.num_batches_tracked")
    }
    assert names_of(model) == state.keys() == again.state_dict().keys()
    assert all(array.tobytes() == state[name].tobytes() for name, array in again.state_dict().items())
    assert [name for name, _ in again.named_buffers()] == ["norm.running_mean", "norm.running_var"]


def test_the_model_is_left_as_it_was(tmp_path):
    net = Own()
    net.train().blocks[0].eval()
    before = net.state_dict()
    minigrad.onnx.export(net, images(2, 3, 33, 32), tmp_path / "net.onnx")
    assert net.training and net.drop.training and not net.blocks[0].training and tracing.recorder is None
    assert all(array.tobytes() == before[name].tobytes() for name, array in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_is_read_trains_on(tmp_path):
    minigrad.manual_seed(0)
    minigrad.onnx.export(Own(), images(4, 3, 33, 32), tmp_path / "net.onnx")
    net = minigrad.onnx.load(tmp_path / "net.onnx").train()
    optimizer, losses = optim.Adam(net.parameters(), 0.01), []
    for _ in range(12):
        loss = F.cross_entropy(net(images(4, 3, 33, 32)), [0, 1, 2, 3])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        net.zero_grad()
    assert losses[-1] < 0.5 * losses[0]


X = images(5, 4, 9, 8)
W, V = (nn.Parameter(images(*shape)) for shape in ((7, 8), (4,)))
OPS = {
    "arithmetic": lambda m, x: (x + 2) * x - x / 3 + -x * m.v[:, None, None],
    "number on the left": lambda m, x: 1 - 2 / (x * x + 1),
    "power": lambda m, x: (x * x + 1) ** 1.5 + 2.0**x,
    "pointwise": lambda m, x: x.exp() + (x * x + 1).log() + (x * x).sqrt() + F.sigmoid(x) + x.tanh(),
    "extremes": lambda m, x: F.maximum(x, 0.2) + F.minimum(x, m.v[:, None, None]) + F.abs(x) + F.clip(x, -0.5, 0.7),
    "one bound": lambda m, x: F.clip(x, min=0.1) + F.clip(x, max=0.3),
    "where": lambda m, x: F.where(x > 0.3, x, -2.0),
    "comparisons": lambda m, x: sum(
        (c.astype("float32") * k for k, c in enumerate([x > 0, x >= 0, x < 1, x <= 1, x == 0, x != 0])), x
    ),
    "linear of more axes": lambda m, x: F.linear(x, m.w) + F.linear(x, m.w, m.w[:, 0]),
    "matmul": lambda m, x: (x @ m.w.T) @ x[:, :, :7],
    "matmul of a vector": lambda m, x: x.transpose(0, 2, 3, 1) @ m.v,
    "sums": lambda m, x: x.sum((2, 3)) + x.mean(-1).sum(2) + F.max(x, (2, 3)),
    "keepdims": lambda m, x: x.sum(1, keepdims=True) + x.mean((2, 3), keepdims=True) + F.max(x, 3, keepdims=True),
    "sum of booleans": lambda m, x: (x > 0).sum(1),
    "argmax": lambda m, x: F.argmax(x, 1) + F.argmin(x, 2, keepdims=True)[:, :1, 0, :][:, :, None].sum(1),
    "argmax of all": lambda m, x: x + F.argmax(x[:, 0] * 0 + m.w[0], keepdims=True).astype("float32")[:, None],
    "softmax": lambda m, x: F.softmax(x, 1) + F.log_softmax(x, -1),
    "shapes": lambda m, x: x.reshape(len(x), 2, -1).transpose(1, 0, 2).reshape(2, -1).T,
    "slices": lambda m, x: x[:, 1:3, ::2, 1:-1] + x[:, [3, 0], ::-2, :-2],
    "ints": lambda m, x: x[:, -1, 2] + x[..., 0, :][:, 1],
    "new axes": lambda m, x: x[:, None, ..., None][:, :, 2],
    "negative steps": lambda m, x: x[:, ::-1, 7::-3],
    "gather": lambda m, x: x[:, :, [0, 2, -1]] + x[:, :, np.array([1, 1, 0])],
    "split and concat": lambda m, x: F.concat([*F.split(x, [1, 3], axis=1)][::-1], 1) + F.split(x, 3, 2)[1][:, :, :1],
    "pad": lambda m, x: F.pad(x, ((0, 0), (1, 0), (0, 2), (3, 0)), 1.5),
    "lrn": lambda m, x: F.lrn(x, 3, 1.0, 0.5, 0.7) + F.lrn(x, 5, 2.0, 0.3, 0.75, groups=2),
    "lrn_within_map": lambda m, x: F.lrn_within_map(x, 3, 1.0, 0.5, 0.7),
    "max_pool2d": lambda m, x: F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
    "max_pool2d with dilation": lambda m, x: F.max_pool2d(x, 2, (3, 2), 0, (2, 3), ceil_mode=True),
    "avg_pool2d": lambda m, x: F.avg_pool2d(x, 3, 2, ((1, 0), (0, 1)), ceil_mode=True, count_include_pad=False),
    "avg_pool2d with padding": lambda m, x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
    "conv_transpose2d": lambda m, x: F.conv_transpose2d(x, m.k, None, (2, 3), ((1, 0), (0, 2)), (1, 2), 2, (1, 2)),
    "conv_transpose2d of a row": lambda m, x: F.conv_transpose2d(x[:, :, :1], m.k, None, (2, 1), 0, (1, 0), 2),
    "batch_norm": lambda m, x: F.batch_norm(x, m.v.detach(), (m.v * m.v).detach(), m.v, m.v, eps=0.1),
    "batch_norm of the batch": lambda m, x: F.batch_norm(x, None, None, m.v, None, training=True),
    "a result twice": lambda m, x: F.relu(x),
    "in_chunks": lambda m, x: minigrad.in_chunks(lambda part: F.relu(part) + m.v[:, None, None], x, size=2),
    "a constant made in forward": lambda m, x: x * Tensor(np.arange(8.0), dtype="float32"),
    "double and back": lambda m, x: (x.astype("float64") * 2).astype("float32"),
    "what is held": lambda m, x: x * m.held,
    "the input itself": lambda m, x: x,
}  # fmt: skip


@pytest.mark.parametrize("what", OPS)
def test_ops(what, tmp_path):
    net = Forward(OPS[what], w=W, v=V, k=nn.Parameter(images(4, 3, 3, 2)), held=Tensor(images(9, 8)))
    check(net, X, tmp_path, 2e-5)


def test_every_op_has_a_writer_or_is_refused(tmp_path):
    """A new op is to be thought of here."""
    from minigrad.engine import Function
    from minigrad.onnx.writers import WRITERS

    def below(cls):
        return {cls, *(deeper for derived in cls.__subclasses__() for deeper in below(derived))}

    ops = {cls for cls in below(Function) if cls.__module__.startswith("minigrad.ops.")}
    without = {"Dropout", "CrossEntropy", "Prepare", "ResponseNorm"}
    assert {cls.__name__ for cls in ops - set(WRITERS)} == without


def test_several_inputs_and_outputs(tmp_path):
    net = Forward(lambda m, a, b: (a + b, a, a.max((1, 2, 3)), (a + b) * 0 + 1))
    a, b = images(3, 2, 4, 4), images(3, 2, 1, 1)
    minigrad.onnx.export(net, (a, b), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [entry.name for entry in model.graph.input] == ["input_0", "input_1"]
    assert [entry.name for entry in model.graph.output] == ["output_0", "output_1", "output_2", "output_3"]
    a, b = images(7, 2, 4, 4), images(7, 2, 1, 1)
    for ys in (run(tmp_path / "net.onnx", a, b), minigrad.onnx.load(tmp_path / "net.onnx")(a, b)):
        for y, expected in zip(ys, (a + b, a, a.max((1, 2, 3)), np.ones_like(a))):
            np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_two_outputs_that_are_one(tmp_path):
    def twice(m, x):
        y = F.relu(x)
        return y, y

    minigrad.onnx.export(Forward(twice), X, tmp_path / "net.onnx")
    for y in run(tmp_path / "net.onnx", X):
        np.testing.assert_array_equal(y, np.maximum(X, 0))


# ---------------------------------------------------------------- what is refused

CALLS = []


def alternating(m, x):
    CALLS.append(1)
    return x * float(len(CALLS) % 2 + 1)


def in_place(m, x):
    y = x * 1.0
    with minigrad.no_grad():
        y *= 2
    return y


CHANGES = "changes with the input, and the file would hold that of the example"
REFUSED = {
    "if": (lambda m, x: F.relu(x) if len(x) < 6 else x * 2, "its op number 0 was Relu, and Mul for others"),
    "numpy": (lambda m, x: x * Tensor(x.numpy() * 2), rf"an array \(5, 4, 9, 8\) that no op has made .*, {CHANGES}"),
    "item": (lambda m, x: x * x[0, 0, 0, 0].item(), rf"an array \(\) that no op has made .*, {CHANGES}"),
    "largest": (lambda m, x: x / float(x[:1].max()), rf"an array \(\) that no op has made .*, {CHANGES}"),
    "number of images": (lambda m, x: x / len(x), CHANGES),
    "a mask of the batch": (lambda m, x: x * Tensor(np.ones((len(x), 1, 1, 1), "f")), CHANGES),
    "half the batch": (lambda m, x: x[: len(x) // 2 + 1], CHANGES),
    "two sizes": (lambda m, x: (x[:, 0, 0, :1] * x[:, 0, 0, 0]).reshape(len(x), 1, len(x)), "let one size alone"),
    "fixed number": (lambda m, x: x.reshape(5, -1), r"runs on 5 image\(s\) and not on 6, .* reshape"),
    "axis of the batch": (lambda m, x: F.concat([x[i : i + 1] for i in range(len(x))]), "depends on the images"),
    "a setting": (lambda m, x: F.max_pool2d(x, len(x) - 3), "settings of MaxPool .* depend on the images"),
    "in place": (in_place, "the graph gives other numbers than the model, output,"),
    "dropout": (lambda m, x: F.dropout(x, 0.5) + F.dropout(x), r"no counterpart in ONNX: Dropout \(2 times\)"),
    "loss": (lambda m, x: F.cross_entropy(x.flatten(1), [0] * len(x)), r"in ONNX: CrossEntropy \(1 times\)"),
    "masks": (
        lambda m, x: x[:, np.array([True, False, True, True])] + x[:, 0, [1]].sum(),
        r"indexing with a mask \(1 times\), indexing with several arrays, or .* \(1 times\)",
    ),
    "state": (alternating, CHANGES),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_file_cannot_hold_is_refused(what, tmp_path):
    function, message = REFUSED[what]
    path = tmp_path / "net.onnx"
    path.write_bytes(b"what was there before")
    with pytest.raises(GraphError, match=message):
        minigrad.onnx.export(Forward(function), X, path)
    assert path.read_bytes() == b"what was there before" and [*tmp_path.iterdir()] == [path]
    assert tracing.recorder is None


def test_wrong_arguments(tmp_path):
    net, path = nn.Linear(3, 2), tmp_path / "net.onnx"
    for model, example, error, message in (
        (F.relu, X, ArgumentError, "model must be a minigrad.nn.Module, got function"),
        (net, [], ArgumentError, "at least one, got nothing"),
        (net, np.zeros((0, 3), "f"), ArgumentError, r"at least one, got \(0, 3\)"),
        (net, np.zeros((2, 0), "f"), ArgumentError, r"at least one, got \(2, 0\)"),
        (net, np.full((1, 3), np.nan, "f"), ArgumentError, "example holds nan or inf"),
        (net, np.float32(3), ArgumentError, r"at least one, got \(\)"),
        (Forward(lambda m, x: x.numpy()), X, DTypeError, "must return Tensors, .* got ndarray"),
        (
            Forward(lambda m, x: x * m.input, input=V[:, None, None].detach()),
            X,
            ArgumentError,
            "a tensor 'input', which",
        ),
    ):
        with pytest.raises(error, match=message):
            minigrad.onnx.export(model, example, path)
        assert not path.exists()
    with pytest.raises(CheckpointError, match="export: cannot write .*: make the folder first"):
        minigrad.onnx.export(net, np.zeros((1, 3), "f"), tmp_path / "none" / "net.onnx")


def test_the_work_of_other_threads_is_not_written_down(tmp_path):
    """Another trains while this one exports."""
    import threading

    going, done = threading.Event(), threading.Event()

    def others():
        while not done.is_set():
            F.relu(Tensor([1.0]))
            going.set()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        assert going.wait(10)
        model = check(LeNet5(), images(5, 1, 32, 32), tmp_path)
    finally:
        done.set()
        thread.join()
    assert "Relu" not in {node.op_type for node in model.graph.node}
