"""The main job that begins with the AlexNet of the ONNX model zoo: a file of the same graph, with made-up weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from narrow import NARROW, coloured_classes, main, narrow_net  # noqa: F401
from onnx_graphs import LIGHT, logits_of, onnx, run, save, with_weights

from minigrad import CheckpointError, Tensor, checkpoint, no_grad
from minigrad import onnx as ours
from minigrad.data import ImageStats

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import trained  # noqa: E402
from alexnet import PRESETS, WIDTHS, AlexNet  # noqa: E402
from alexnet_imagenet import begin_with  # noqa: E402
from zoo import INPUT_SIZE, MEAN_RGB, first_weights  # noqa: E402

h = onnx.helper


def zoo_model(widths, classes, apart=False):
    """The zoo's graph with made-up weights of these widths.  apart: no normalisation looks across the columns."""
    model = onnx.load(LIGHT / "light_bvlc_alexnet.onnx")
    rng, n = np.random.default_rng(0), [2 * width for width in widths]
    shapes = {
        "conv1": (n[0], 3, 11, 11), "conv2": (n[1], n[0] // 2, 5, 5), "conv3": (n[2], n[1], 3, 3),
        "conv4": (n[3], n[2] // 2, 3, 3), "conv5": (n[4], n[3] // 2, 3, 3), "fc6": (n[5], n[4] * 36),
        "fc7": (n[6], n[5]), "fc8": (classes, n[6]),
    }  # fmt: skip
    state = {"OC2_DUMMY_1": np.array([-1, n[4] * 36])}
    for name, shape in shapes.items():
        std = np.sqrt(2 / np.prod(shape[1:]))
        state[f"{name}_w_0"] = (rng.standard_normal(shape) * std).astype("f")
        state[f"{name}_b_0"] = rng.uniform(-5, 5, shape[0]).astype("f")
    model = with_weights(model, state)
    if apart:
        nodes = []
        for node in model.graph.node:
            if node.op_type == "LRN":
                (x,), (y,), settings = (
                    node.input,
                    node.output,
                    {a.name: h.get_attribute_value(a) for a in node.attribute},
                )
                c, side = (n[0], 55) if not nodes or len(nodes) < 5 else (n[1], 27)
                model.graph.initializer.extend([
                    onnx.numpy_helper.from_array(np.array([-1, c // 2, side, side]), f"{y}_half"),
                    onnx.numpy_helper.from_array(np.array([-1, c, side, side]), f"{y}_whole"),
                ])  # fmt: skip
                nodes += [
                    h.make_node("Reshape", [x, f"{y}_half"], [f"{y}_in"]),
                    h.make_node("LRN", [f"{y}_in"], [f"{y}_out"], **settings),
                    h.make_node("Reshape", [f"{y}_out", f"{y}_whole"], [y]),
                ]
            else:
                nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return model


def caffe_s_logits(model, pixels):
    """What the graph says of pictures (N, 227, 227, 3) from 0 to 255, as Caffe prepares them."""
    views = np.ascontiguousarray((pixels - MEAN_RGB)[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    model = logits_of(model, INPUT_SIZE)
    for entry in (*model.graph.input, *model.graph.output):
        if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            entry.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    (logits,) = run(model, views)
    return logits


def our_logits(path, preset, devices, widths, classes, pixels, dropout=0.3):
    net = AlexNet(classes, preset, devices, INPUT_SIZE, widths, dropout).eval()
    given = first_weights(path, PRESETS[preset], dropout)
    net.load_state_dict(given.state)
    views = (pixels - MEAN_RGB).transpose(0, 3, 1, 2) * PRESETS[preset].pixel_scale
    with no_grad():
        return net(Tensor(views, dtype="float32", device=devices[0])).numpy()


PIXELS = np.random.default_rng(3).integers(0, 256, (4, 9, 9, 3)).repeat(26, 1).repeat(26, 2)[:, :227, :227].astype("f")


@pytest.mark.parametrize("preset", ["paper", "trainable"])
@pytest.mark.parametrize("devices", [("cpu:0",), ("cpu:0", "cpu:1")])
def test_the_same_logits_as_the_zoo_s_graph(preset, devices, tmp_path):
    path = save(zoo_model(NARROW, 7), tmp_path / "bvlc.onnx")
    expected = caffe_s_logits(zoo_model(NARROW, 7, apart=True), PIXELS)
    y = our_logits(path, preset, devices, NARROW, 7, PIXELS)
    assert expected.std() > 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_the_whole_net_and_what_the_border_between_the_columns_costs(tmp_path):
    path = save(zoo_model(WIDTHS, 1000), tmp_path / "bvlc.onnx")
    y = our_logits(path, "trainable", ("cpu:0", "cpu:1"), WIDTHS, 1000, PIXELS)
    apart, across = (caffe_s_logits(zoo_model(WIDTHS, 1000, apart), PIXELS) for apart in (True, False))
    largest = np.abs(across).max()
    differences = [float(np.abs(y - expected).max() / largest) for expected in (apart, across)]
    print(f"of the largest logit: {differences[0]:.1e} to the graph in columns, {differences[1]:.1e} to the zoo's own")
    assert differences[0] < 1e-5 and differences[1] < 0.1


def test_the_classes_of_the_zoo(tmp_path, capsys):
    """Its thousand are ILSVRC2012's, by their sorted wnids: fc8 is kept for these alone."""
    given = first_weights(save(zoo_model(NARROW, 1000), tmp_path / "b.onnx"), PRESETS["trainable"], 0.5)
    wnids = [f"n{k:08}" for k in range(1000)]
    for classes, kept in ((wnids, True), (wnids[::-1], False), (wnids[:-1], False), ([*wnids[:-1], "zebra"], False)):
        model = AlexNet(len(classes), "trainable", ("cpu:0",), INPUT_SIZE, NARROW)
        assert begin_with(model, tmp_path / "b.onnx", classes, given) == (set() if kept else {"fc8"})
        assert np.array_equal(model.state_dict()["fc8.bias"][:5], given.state["fc8.bias"][:5]) == kept


def test_the_program_begins_with_it_and_goes_on(tmp_path, capsys):
    weights = save(zoo_model(NARROW, 9), tmp_path / "bvlcalexnet-9.onnx")
    data = coloured_classes(tmp_path / "data", 3, 1)
    options = ["--out", tmp_path, "--data", data, "--batch-size", 3, "--no-figures", "--devices", "cpu:0"]
    code, out, err = main(capsys, *options, "--steps", 1, "--name", "r", "--init", weights, "--lr", 1e-9)
    assert code == 0, err
    assert f"weights of {weights}; these begin anew: fc8.weight, fc8.bias" in out
    state, facts = checkpoint.load(tmp_path / "r" / "weights.safetensors")
    first = first_weights(weights, PRESETS["trainable"], 0.2).state
    for name in first.keys() - {"fc8.weight", "fc8.bias"}:
        np.testing.assert_allclose(state[name], first[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert json.loads(facts["input_size"]) == 227
    again = trained.Trained.restore(tmp_path / "r" / "weights.safetensors", "trainable", ("cpu:0",))
    assert again.model.input_size == 227 and again.center_view()(np.zeros((256, 256, 3), np.uint8)).shape == (
        227,
        227,
        3,
    )
    assert json.loads((tmp_path / "r" / "config.json").read_text())["input_size"] == 227
    stats = ImageStats.load(tmp_path / "r" / "preparation.npz")
    assert stats.mean_image.shape == (256, 256, 3) and (stats.mean_image == MEAN_RGB).all()
    weights.unlink()
    code, out, err = main(capsys, "--resume", tmp_path / "r", "--steps", 2)  # the file is not needed any more
    assert code == 0 and "going on after step 1" in out, err
    code, out, err = main(capsys, "--evaluate", tmp_path / "r" / "weights.safetensors", "--data", data)
    assert code == 0, err
    code, out, err = main(
        capsys, *options, "--steps", 1, "--name", "s", "--init", tmp_path / "r" / "weights.safetensors"
    )
    assert code == 0 and "begin anew" not in out, err
    assert json.loads((tmp_path / "s" / "config.json").read_text())["input_size"] == 227


def test_other_files_are_refused(tmp_path, capsys):
    data = coloured_classes(tmp_path / "data", 2, 1)
    options = ["--out", tmp_path, "--data", data, "--no-figures", "--devices", "cpu:0", "--name", "r", "--steps", 1]

    def refused(path, *more):
        code, _, err = main(capsys, *options, "--init", path, *more)
        assert code == 2 and not (tmp_path / "r").exists(), err
        return err

    good = zoo_model(NARROW, 9)
    path = save(good, tmp_path / "b.onnx")
    assert "fit nets that normalise after ReLU, and then pool: take --preset" in refused(path, "--preset", "original")
    exported = AlexNet(9, "trainable", ("cpu:0",), INPUT_SIZE, NARROW)
    ours.export(exported, np.zeros((1, 3, 227, 227), "f"), tmp_path / "ours.onnx")
    assert "ours.onnx holds another net than the zoo's AlexNet: its operator 2 is Reshape, not LRN" in refused(
        tmp_path / "ours.onnx"
    )
    assert "its operator 2 is MaxPool, not LRN" in refused(LIGHT / "light_squeezenet.onnx")
    for change, message in (
        (lambda nodes: nodes["Conv"][1].attribute.remove(nodes["Conv"][1].attribute[0]), "has group=1, the zoo's"),
        (lambda nodes: nodes["LRN"][0].attribute[0].__setattr__("i", 3), "has size=3, the zoo's AlexNet 5"),
        (lambda nodes: nodes["Conv"][2].input.pop(), "not all layers have a weight and a bias"),
    ):
        model = onnx.ModelProto.FromString(good.SerializeToString())
        nodes = {}
        for node in model.graph.node:
            nodes.setdefault(node.op_type, []).append(node)
        change(nodes)
        assert message in refused(save(model, tmp_path / "changed.onnx"))
    (tmp_path / "no.onnx").write_bytes(b"no")
    assert "no.onnx is no ONNX file that can be used" in refused(tmp_path / "no.onnx")


def test_a_saved_input_size_must_be_one(tmp_path):
    checkpoint.save(tmp_path / "w", AlexNet(2, widths=NARROW).state_dict(), {"input_size": "many"})
    with pytest.raises(CheckpointError, match="input_size in its metadata must be 224 or 227, got 'many'"):
        first_weights(tmp_path / "w", PRESETS["paper"], 0.5)
