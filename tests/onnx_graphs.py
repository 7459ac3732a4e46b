"""ONNX graphs for the tests: small ones made here, and the nine of the model zoo that the package onnx brings."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX files need the package onnx (extra: onnx)")
h, TYPES = onnx.helper, {"f": onnx.TensorProto.FLOAT, "d": onnx.TensorProto.DOUBLE, "l": onnx.TensorProto.INT64}
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ZOO = ("bvlc_alexnet", "zfnet512", "squeezenet", "vgg19", "resnet50", "inception_v1", "inception_v2", "densenet121",
       "shufflenet")  # fmt: skip


def kind(array):
    return h.np_dtype_to_tensor_dtype(np.asarray(array).dtype)


def model_of(nodes, inputs, outputs, initializers=None, opset=17, free=()):
    """A ModelProto.  inputs: name -> array of that shape; free: inputs whose first size is; outputs: name -> type."""
    shapes = {name: ["N", *x.shape[1:]] if name in free else list(x.shape) for name, x in inputs.items()}
    graph = h.make_graph(
        nodes, "made",
        [h.make_tensor_value_info(name, kind(x), shapes[name]) for name, x in inputs.items()],
        [h.make_tensor_value_info(name, type_, None) for name, type_ in outputs.items()],
        [onnx.numpy_helper.from_array(x, name) for name, x in (initializers or {}).items()],
    )  # fmt: skip
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8 if opset > 8 else 3)
    if opset < 9:  # initializers are inputs, too
        graph = model.graph
        graph.input.extend(h.make_tensor_value_info(x.name, x.data_type, x.dims) for x in graph.initializer)
    return onnx.shape_inference.infer_shapes(model)


def save(model, path):
    Path(path).write_bytes(model.SerializeToString())
    return path


def run(model, *inputs):
    """The outputs that onnxruntime computes: of a ModelProto, or a file."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an oracle where installed (extra: test)")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: x for entry, x in zip(session.get_inputs(), inputs)})


def seeded(net):
    """Made-up weights for every parameter and running statistic of a net, so that signals keep their size."""
    rng = np.random.default_rng(0)
    state = {}
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            fan_in = np.prod(parameter.shape[1:])
            state[name] = rng.standard_normal(parameter.shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
        else:  # biases, and the scales and shifts of normalisation, which nothing tells apart
            state[name] = rng.uniform(0.2, 1.0, parameter.shape).astype("f")
    for name, buffer in net.named_buffers():
        state[name] = rng.uniform(0.5, 1.5, buffer.shape).astype("f")
    return state


def with_weights(model, state):
    """The model with these weights as initializers, in the place of whatever made them."""
    proto = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in proto.graph.node if node.output[0] not in state]
    rest = [tensor for tensor in proto.graph.initializer if tensor.name not in state]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.ir_version = max(4, proto.ir_version)  # before, initializers had to be inputs, too
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend([*rest, *(onnx.numpy_helper.from_array(w, name) for name, w in state.items())])
    return proto


def logits_of(model, size):
    """The model without the softmax at its end, which hides differences, for images of size x size pixels."""
    proto = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in proto.graph.input:
        for side in entry.type.tensor_type.shape.dim[2:]:
            side.dim_value = size if side.dim_value == 224 else side.dim_value
    last = proto.graph.node[-1]
    if last.op_type == "Softmax":
        proto.graph.output[0].name = last.input[0]
        proto.graph.node.remove(last)
    return proto
