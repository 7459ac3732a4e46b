"""minigrad.onnx.load: nets of the model zoo and operators in their versions, against onnxruntime; what is refused."""

import copy
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import LIGHT, TYPES, ZOO, h, logits_of, model_of, onnx, run, save, seeded, with_weights

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, CheckpointError, MissingDependencyError, ShapeError, Tensor, optim
from minigrad.onnx.operators import OPERATORS
from minigrad.onnx.reading import graph_of


def images(*shape, dtype="f"):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def load(model, tmp_path):
    return minigrad.onnx.load(save(model, tmp_path / "net.onnx"))


# ---------------------------------------------------------------- the model zoo


@pytest.mark.parametrize(
    "name, size", [("squeezenet", 64), *(pytest.param(name, 224, marks=pytest.mark.slow) for name in ZOO)]
)
def test_a_net_of_the_zoo(name, size, tmp_path):
    """Made-up weights on both sides, the same logits as onnxruntime's, and a step of training in eval() and train()."""
    model = logits_of(onnx.load(LIGHT / f"light_{name}.onnx"), size)
    net = load(model, tmp_path)
    state = seeded(net)
    net.load_state_dict(state)
    x = images(1, 3, size, size)
    (expected,) = run(with_weights(model, state), x)
    with minigrad.no_grad():
        y = net(x).numpy()
    largest, spread = np.abs(expected).max(), expected.std()
    difference = np.abs(y - expected).max() / largest
    assert np.isfinite(expected).all() and spread > 0.02 * largest, "a wrong net would hardly be seen"
    assert difference < 1e-5
    falls = []
    for training in (False, True):
        net.train(training)

        def loss():
            minigrad.manual_seed(1)  # the same dropout before and after
            return F.cross_entropy(net(x).flatten(1) * (1 / float(spread)), [3])

        before = loss()
        before.backward()
        gradients = [parameter.grad.numpy() for parameter in net.parameters()]
        assert all(np.isfinite(g).all() for g in gradients)
        square = sum(float((g.astype("d") ** 2).sum()) for g in gradients)
        assert square > 0 and sum(map(np.any, gradients)) > 0.9 * len(gradients)
        optim.SGD(net.parameters(), 0.01 * before.item() / square).step()  # to first order one per cent less
        net.zero_grad()
        falls.append(loss().item() / before.item())
        net.eval().load_state_dict(state)
    print(f"{name}: {difference:.1e} of the largest logit; losses after a step {falls[0]:.4f}, {falls[1]:.4f}")
    assert max(falls) < 1


# ---------------------------------------------------------------- operators, in the versions of the standard

X = images(2, 4, 9, 8)
NODE_CASES = [
    # (op, inputs besides x, attributes, opset)
    ("Conv", [images(6, 2, 3, 2)], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}, 11),
    ("Conv", [images(3, 4, 4, 3), images(3)], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, 11),
    ("Conv", [images(3, 4, 4, 2), images(3)], {"auto_pad": "SAME_LOWER"}, 19),
    ("Conv", [images(3, 4, 4, 3)], {"auto_pad": "VALID"}, 1),
    ("ConvTranspose", [images(4, 3, 3, 2), images(6)], {"group": 2, "strides": [2, 3], "pads": [1, 0, 0, 1]}, 11),
    ("ConvTranspose", [images(4, 3, 3, 3)], {"strides": [2, 2], "output_padding": [1, 1], "dilations": [2, 1]}, 11),
    ("ConvTranspose", [images(4, 3, 3, 4)], {"strides": [2, 2], "output_shape": [18, 17]}, 11),
    ("ConvTranspose", [images(4, 3, 4, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 11),
    ("ConvTranspose", [images(4, 3, 4, 3)], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, 11),
    ("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 8),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "dilations": [2, 1]}, 12),
    ("MaxPool", [], {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}, 8),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}, 7),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 1]}, 11),
    ("AveragePool", [], {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 0, 1]}, 19),
    (
        "AveragePool",
        [],
        {"kernel_shape": [2, 2], "dilations": [2, 1], "pads": [1, 0, 1, 0], "count_include_pad": 1},
        19,
    ),
    ("GlobalAveragePool", [], {}, 1),
    ("GlobalMaxPool", [], {}, 1),
    ("LRN", [], {"size": 3, "alpha": 0.5, "beta": 0.7, "bias": 1.5}, 1),
    ("LRN", [], {"size": 5}, 13),
    ("BatchNormalization", [images(4), images(4), images(4), images(4) ** 2], {"epsilon": 0.1}, 7),
    ("BatchNormalization", [images(4), images(4), images(4), images(4) ** 2], {}, 15),
    ("Dropout", [], {"ratio": 0.9}, 7),
    ("Dropout", [np.float32(0.9)], {}, 13),
    ("Softmax", [], {}, 11),
    ("Softmax", [], {"axis": 2}, 9),
    ("Softmax", [], {}, 13),
    ("LogSoftmax", [], {"axis": 1}, 13),
    ("LogSoftmax", [], {"axis": -2}, 11),
    ("Add", [images(4, 1, 1)], {}, 7),
    ("Sub", [images(9, 8)], {}, 14),
    ("Mul", [np.float32(3)], {}, 13),
    ("Div", [images(8)], {}, 7),
    ("Sum", [images(8), images(9, 1)], {}, 8),
    ("Mean", [images(8), images(9, 1)], {}, 8),
    ("Max", [images(8), images(9, 1)], {}, 12),
    ("Min", [images(8), images(9, 1)], {}, 8),
    ("Clip", [], {"min": -0.5, "max": 0.25}, 6),
    ("Clip", [np.float32(-0.5), np.float32(0.25)], {}, 12),
    ("Clip", [None, np.float32(0.25)], {}, 11),
    ("Clip", [np.float32(0.5), np.float32(0.25)], {}, 13),
    ("LeakyRelu", [], {"alpha": 0.3}, 6),
    ("PRelu", [images(4, 1, 1)], {}, 9),
    ("HardSigmoid", [], {"alpha": 0.4}, 6),
    *((op, [], {}, 14) for op in ("Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Softplus", "HardSwish", "Identity")),
    ("Reciprocal", [], {}, 13),
    ("Shape", [], {}, 13),
    ("Shape", [], {"start": 1, "end": -1}, 15),
    ("Size", [], {}, 13),
    ("Reshape", [np.array([0, -1, 4])], {}, 5),
    ("Flatten", [], {}, 9),
    ("Flatten", [], {"axis": -1}, 13),
    ("Flatten", [], {"axis": 0}, 13),
    ("Unsqueeze", [], {"axes": [0, 5]}, 1),
    ("Unsqueeze", [np.array([-1, 1])], {}, 13),
    ("Transpose", [], {}, 1),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, 13),
    ("Expand", [np.array([3, 1, 4, 9, 8])], {}, 8),
    ("Slice", [], {"starts": [0, -3], "ends": [2, 99], "axes": [1, 3]}, 1),
    ("Slice", [np.array([-1, 1]), np.array([-99, 8]), np.array([2, -1]), np.array([-2, 3])], {}, 11),
    ("Slice", [np.array([1]), np.array([2])], {}, 10),
    ("Gather", [np.array([[0, 3], [-1, 1]])], {"axis": 1}, 11),
    ("Gather", [np.array(2)], {"axis": -1}, 13),
    ("Pad", [], {"pads": [0, 0, 1, 2, 0, 1, 0, 3], "value": 7.0}, 2),
    ("Pad", [np.array([0, 0, -1, 2, 0, 1, 0, -3]), np.float32(2)], {}, 11),
    ("Pad", [np.array([2, 1, 0, 3]), None, np.array([3, 2])], {"mode": "reflect"}, 18),
    ("Pad", [np.array([0, 0, 2, 1, 0, 0, 0, 3])], {"mode": "edge"}, 13),
    ("ReduceSum", [], {"axes": [1, 3], "keepdims": 0}, 11),
    ("ReduceSum", [np.array([-1])], {}, 13),
    ("ReduceMean", [], {"axes": [-1], "keepdims": 0}, 13),
    ("ReduceMean", [np.array([0, 2])], {}, 18),
    ("ReduceMax", [], {}, 12),
    ("ArgMax", [], {"axis": 1}, 11),
    ("ArgMin", [], {"axis": -1, "keepdims": 0, "select_last_index": 1}, 13),
    ("ReduceMin", [], {"axes": [2, 1]}, 13),
    ("Cast", [], {"to": TYPES["d"]}, 13),
    ("Cast", [], {"to": TYPES["l"]}, 9),
]


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: f"{case[0]}-{case[3]}-{','.join(case[2])}")
@pytest.mark.parametrize("weights", [False, True], ids=["inputs", "weights"])
def test_an_operator_as_onnxruntime_has_it(case, weights, tmp_path):
    """Inputs besides the first come from outside, or lie in the file."""
    op, more, attributes, opset = case
    if weights and not more:
        return
    names = ["x", *("" if value is None else f"w{i}" for i, value in enumerate(more))]
    values = {name: np.asarray(value) for name, value in zip(names, [X, *more]) if name}
    inputs = {name: value for name, value in values.items() if not weights or name == "x"}
    inside = {name: value for name, value in values.items() if name not in inputs}
    out = TYPES["l"] if op in ("Shape", "Size", "ArgMax", "ArgMin") else attributes.get("to", TYPES["f"])
    model = model_of([h.make_node(op, names, ["y"], **attributes)], inputs, {"y": out}, inside, opset)
    (expected,) = run(model, *inputs.values())
    model.graph.output[0].CopyFrom(h.make_tensor_value_info("y", out, expected.shape))
    y = load(model, tmp_path)(*inputs.values()).numpy()
    assert y.dtype == expected.dtype and y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("factors", [{}, {"alpha": 0.5, "beta": 3.0}])
@pytest.mark.parametrize("c", [None, (5,), (3, 1), (1,), ()])
def test_gemm(transposed, factors, c, tmp_path):
    a, b = images(*((4, 3) if transposed[0] else (3, 4))), images(*((5, 4) if transposed[1] else (4, 5)))
    inputs = {"a": a, "b": b} if c is None else {"a": a, "b": b, "c": images(*c)}
    attributes = {"transA": transposed[0], "transB": transposed[1], **factors}
    model = model_of([h.make_node("Gemm", list(inputs), ["y"], **attributes)], inputs, {"y": TYPES["f"]}, opset=13)
    np.testing.assert_allclose(load(model, tmp_path)(*inputs.values()), run(model, *inputs.values())[0], rtol=1e-5)


def test_where_and_comparisons(tmp_path):
    """Both ways through: a condition computed from the images, and one that comes from outside."""
    a, b = X, images(9, 8)
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        nodes = [h.make_node(op, ["a", "b"], ["c"]), h.make_node("Where", ["c", "a", "b"], ["y"])]
        model = model_of(nodes, {"a": a, "b": b}, {"y": TYPES["f"]}, opset=16)
        np.testing.assert_array_equal(load(model, tmp_path)(a, b), run(model, a, b)[0])
    model = model_of([h.make_node("Where", ["c", "a", "b"], ["y"])], {"c": a > 0, "a": a, "b": b}, {"y": TYPES["f"]})
    np.testing.assert_array_equal(load(model, tmp_path)(a > 0, a, b), run(model, a > 0, a, b)[0])


def test_integers_as_onnxruntime_has_them(tmp_path):
    """Shapes and indices: computed in NumPy, to the same numbers."""
    a, b = np.array([[7, -7, 3], [-8, 9, 0]]), np.array([2, -3, 5])
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less"):
        out = onnx.TensorProto.BOOL if op in ("Equal", "Less") else TYPES["l"]
        model = model_of([h.make_node(op, ["a", "b"], ["y"])], {"a": a, "b": b}, {"y": out})
        y = load(model, tmp_path)(a, b).numpy()
        (expected,) = run(model, a, b)
        assert y.dtype == expected.dtype and y.tolist() == expected.tolist(), op
    for op in ("ReduceSum", "ReduceMax", "ReduceMin", "Neg", "Abs"):
        model = model_of([h.make_node(op, ["a"], ["y"])], {"a": a}, {"y": TYPES["l"]}, opset=13)
        assert load(model, tmp_path)(a).numpy().tolist() == run(model, a)[0].tolist(), op


def test_split_and_squeeze(tmp_path):
    x = images(2, 5, 1, 3)
    for opset, inside, attributes in (
        (11, {}, {"split": [1, 3, 1]}),
        (13, {"s": np.array([0, 4, 1])}, {}),
        (18, {}, {}),
    ):
        more = {"num_outputs": 3} if opset == 18 else {}  # of five rows: two, two and one
        nodes = [h.make_node("Split", ["x", *inside], ["a", "b", "c"], axis=1, **attributes, **more)]
        model = model_of(nodes, {"x": x}, dict.fromkeys("abc", TYPES["f"]), inside, opset)
        for y, expected in zip(load(model, tmp_path)(x), run(model, x)):
            np.testing.assert_array_equal(y, expected)
    for opset, inside, attributes in ((11, {}, {"axes": [2]}), (13, {"s": np.array([-2])}, {}), (13, {}, {})):
        nodes = [h.make_node("Squeeze", ["x", *inside], ["y"], **attributes)]
        model = model_of(nodes, {"x": x}, {"y": TYPES["f"]}, inside, opset)
        np.testing.assert_array_equal(load(model, tmp_path)(x), run(model, x)[0])


def test_before_opset_7_broadcasting_is_said(tmp_path):
    """onnxruntime has none so old: a bias per channel, as Caffe2 wrote it."""
    bias = images(4)
    nodes = [h.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)]
    y = load(model_of(nodes, {"x": X}, {"y": TYPES["f"]}, {"b": bias}, opset=6), tmp_path)(X)
    np.testing.assert_array_equal(y.numpy(), X + bias[:, None, None])


def test_shapes_computed_on_the_way(tmp_path):
    """As PyTorch writes x.view(len(x), -1), and for any number of images."""
    nodes = [
        h.make_node("Shape", ["x"], ["shape"]),
        h.make_node("Gather", ["shape", "zero"], ["n"]),
        h.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        h.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        h.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    inside = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    net = load(model_of(nodes, {"x": X}, {"y": TYPES["f"]}, inside, free=("x",)), tmp_path)
    for n in (1, 5):
        x = images(n, 4, 9, 8)
        np.testing.assert_array_equal(net(x), x.reshape(n, -1))
    assert not list(net.parameters())


# ---------------------------------------------------------------- a net as a module


def small(opset=17, double=False):
    """Convolution, batch norm, dropout, a product: names as PyTorch gives them, and some that cannot be attributes."""
    kind_ = "d" if double else "f"
    weights = {
        "features.0.weight": images(4, 3, 3, 3, dtype=kind_), "features.0.bias": images(4, dtype=kind_),
        "features.1.weight": images(4, dtype=kind_), "features.1.bias": images(4, dtype=kind_),
        "mean": images(4, dtype=kind_), "var": images(4, dtype=kind_) ** 2,
        "forward": images(4 * 36, 2, dtype=kind_), "features": images(2, dtype=kind_), "scale": np.array(2, kind_),
    }  # fmt: skip
    nodes = [
        h.make_node("Conv", ["x", "features.0.weight", "features.0.bias"], ["a"], pads=[1, 1, 1, 1]),
        h.make_node("BatchNormalization", ["a", "features.1.weight", "features.1.bias", "mean", "var"], ["b"],
                    momentum=0.75),
        h.make_node("Relu", ["b"], ["c"]),
        h.make_node("Flatten", ["c"], ["d"]),
        h.make_node("Dropout", ["d"], ["e"]),
        h.make_node("MatMul", ["e", "forward"], ["f"]),
        h.make_node("Add", ["f", "features"], ["g"]),
        h.make_node("Mul", ["g", "scale"], ["y"]),
    ]  # fmt: skip
    x = images(5, 3, 6, 6, dtype=kind_)
    return model_of(nodes, {"x": x}, {"y": TYPES[kind_]}, weights, opset, free=("x",)), weights, x


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("device", ["cpu:0", "cpu:1", "textbook:0", "cudasim:0"])
def test_on_any_device_and_in_both_types(double, device, tmp_path):
    model, _, x = small(double=double)
    net = minigrad.onnx.load(save(model, tmp_path / "net.onnx"), device)
    y = net(x)
    assert str(y.device) == device and y.dtype == x.dtype
    reference = pytest.importorskip("onnx.reference")
    (expected,) = reference.ReferenceEvaluator(model).run(None, {"x": x})  # onnxruntime has no double Conv
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert all(parameter.grad is not None and str(parameter.device) == device for parameter in net.parameters())
    moved = net.to("cpu:0")
    np.testing.assert_allclose(moved(x).numpy(), y.numpy(), rtol=1e-4, atol=1e-4)


def test_the_names_of_weights(tmp_path):
    """Dots are levels; what would hide a method, or has another's place, gets underscores; no weight is lost."""
    model, weights, x = small()
    net = load(model, tmp_path)
    assert dict(net.named_parameters()).keys() == {
        "features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias", "forward_", "features_",
    }  # fmt: skip
    assert [name for name, _ in net.named_buffers()] == ["mean", "var"]
    assert net.state_dict()["forward_"].tobytes() == weights["forward"].tobytes()
    before = net(x).numpy().copy()
    again = copy.deepcopy(net)
    with minigrad.no_grad():
        again.tensor_of("features")[...] = 0.0
    assert np.abs(again(x).numpy() - before).max() > 0.1
    np.testing.assert_array_equal(net(x).numpy(), before)
    again.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(again(x).numpy(), before)
    assert repr(net).startswith("Net('made', 8 nodes)")


def test_training_is_what_train_says(tmp_path):
    """eval(): the file's numbers, always the same.  train(): dropout, and statistics that follow the batch's."""
    model, weights, x = small()
    net = load(model, tmp_path)
    assert not net.training
    np.testing.assert_array_equal(net(x).numpy(), net(x).numpy())
    assert net.state_dict()["mean"].tobytes() == weights["mean"].tobytes()
    net.train()
    assert np.abs(net(x).numpy() - net(x).numpy()).max() > 0
    conv = F.conv2d(Tensor(x), Tensor(weights["features.0.weight"]), Tensor(weights["features.0.bias"]), padding=1)
    mean = conv.numpy().mean((0, 2, 3))
    expected = (weights["mean"] * 0.75 + mean * 0.25) * 0.75 + mean * 0.25  # momentum is what is kept; two batches
    np.testing.assert_allclose(net.state_dict()["mean"], expected, rtol=1e-4, atol=1e-5)


def test_the_gradients_are_those_of_differences(tmp_path):
    model, _, x = small(double=True)
    net = load(model, tmp_path)
    assert minigrad.gradcheck(lambda *_: net(x), list(net.parameters()))
    leaf = Tensor(x[:2], requires_grad=True)
    assert minigrad.gradcheck(net, [leaf])


def test_constants_are_not_trained_and_weights_are(tmp_path):
    """A Constant node is one, but for those that go in where weights do; shapes that are filled stand for weights."""
    constant = onnx.numpy_helper.from_array
    nodes = [
        h.make_node("Constant", [], ["mean"], value=constant(images(4, 1, 1))),
        h.make_node("Constant", [], ["half"], value_float=0.5),
        h.make_node("Constant", [], ["kernel"], value=constant(images(2, 4, 1, 1))),
        h.make_node("ConstantOfShape", ["two"], ["bias"], value=constant(np.array([0.5], "f"))),
        h.make_node("Identity", ["bias"], ["same"]),
        h.make_node("Sub", ["x", "mean"], ["a"]),
        h.make_node("Mul", ["a", "half"], ["b"]),
        h.make_node("Conv", ["b", "kernel", "same"], ["y"]),
    ]
    inside = {"two": np.array([2]), "nobody": images(3)}
    model = model_of(nodes, {"x": X}, {"y": TYPES["f"]}, inside)
    net = load(model, tmp_path)
    assert [name for name, _ in net.named_parameters()] == ["kernel", "bias"]
    np.testing.assert_allclose(net(X).numpy(), run(model, X)[0], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- what is refused


def test_all_that_is_missing_is_listed_at_once(tmp_path):
    nodes = [
        h.make_node("Sin", ["x"], ["a"], name="first"),
        h.make_node("Sin", ["a"], ["b"], name="evil\x1b[2J"),
        h.make_node("LRN", ["b"], ["d"], size=4),
        h.make_node("Cast", ["d"], ["y"], to=10),
    ]
    model = model_of(nodes, {"x": X}, {"y": 10}, {"half": images(2).astype("float16")})
    model.graph.node.append(h.make_node("FusedConv", ["b"], ["c"], domain="com.microsoft"))
    with pytest.raises(CheckpointError) as error:
        graph_of(model, "f", OPERATORS)
    text = str(error.value)
    assert "needs 5 thing(s) that minigrad does not have" in text and "\x1b" not in text
    assert "Sin: nodes 'first', 'evil\\\\x1b[2J'" in text or "Sin: nodes 'first', 'evil\\x1b[2J'" in text
    for part in ("com.microsoft.FusedConv: node '-> c'", "LRN with an even size=4", "Cast with to=10", "FLOAT16"):
        assert part in text, part


def test_no_file_of_onnx(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file .*none.onnx"):
        minigrad.onnx.load(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="there is no file"):
        minigrad.onnx.load(tmp_path)
    content = small()[0].SerializeToString()
    for bad in (b"", b"no onnx at all", content[: len(content) // 2]):
        (tmp_path / "bad.onnx").write_bytes(bad)
        with pytest.raises(CheckpointError, match="bad.onnx is no ONNX file that can be used"):
            minigrad.onnx.load(tmp_path / "bad.onnx")
    model = small()[0]
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(CheckpointError, match="is no ONNX file that can be used: ValidationError: .*nowhere"):
        load(model, tmp_path)
    for shape in ([-3], [2**40, 2**40]):  # which the checker lets pass
        nodes = [h.make_node("ConstantOfShape", ["shape"], ["w"]), h.make_node("Add", ["x", "w"], ["y"])]
        model = model_of(nodes, {"x": X}, {"y": TYPES["f"]}, {"shape": np.array(shape)})
        model.graph.output[0].CopyFrom(h.make_tensor_value_info("y", TYPES["f"], X.shape))
        with pytest.raises(CheckpointError, match="net.onnx (is damaged, or wrongly made: ValueError|.*no memory)"):
            load(model, tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.onnx")
        with pytest.raises(CheckpointError, match="there is no file"):
            minigrad.onnx.load(tmp_path / "pipe.onnx")


def test_without_the_package_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: minigrad.onnx.load("x"), lambda: minigrad.onnx.export(minigrad.nn.ReLU(), X, "x")):
        with pytest.raises(MissingDependencyError, match=r"pip install 'minigrad\[onnx\]'"):
            call()


def test_inputs_that_do_not_fit(tmp_path):
    net = load(small()[0], tmp_path)
    with pytest.raises(ArgumentError, match="onnx net 'made': takes 1 input.s., x, got 2"):
        net(X, X)
    with pytest.raises(ShapeError, match=r"input x must have the shape \('any', 3, 6, 6\), .* it has \(2, 4, 9, 8\)"):
        net(X)
    with pytest.raises(minigrad.DTypeError, match="node 0, Conv '-> a': conv2d: inputs must be all"):
        net(images(2, 3, 6, 6, dtype="d"))
    nodes = [h.make_node("Reshape", ["x", "to"], ["y"], name="flat")]
    net = load(model_of(nodes, {"x": images(1, 6)}, {"y": TYPES["f"]}, {"to": np.array([1, 6])}), tmp_path)
    assert net(images(1, 6)).shape == (1, 6)
    with pytest.raises(ShapeError, match="onnx: node 0, Reshape 'flat': reshape: .* does not fit"):
        net(images(2, 6))
    net = load(model_of([h.make_node("Conv", ["x", "w"], ["y"])], {"x": images(1, 2, 5)}, {"y": TYPES["f"]},
                        {"w": images(2, 2, 3)}), tmp_path)  # fmt: skip
    with pytest.raises(ShapeError, match="x must be images"):
        net(images(1, 2, 5))


def test_the_documentation_lists_the_operators():
    text = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text(encoding="utf-8")
    listed = text.split("Operators:\n")[1].split(".\n")[0].replace("\n", " ").split(", ")
    assert sorted(listed) == listed and set(listed) == {"Constant", *OPERATORS}
