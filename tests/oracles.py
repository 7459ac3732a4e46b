"""Answers that share no code with ours: single ops run by onnxruntime.  (PyTorch's are one call each, in the tests.)"""

import pytest


def onnx_run(op, *inputs, opset=19, **attributes):
    """The output of one ONNX operator on float32 arrays; skips the test where onnx or onnxruntime is missing."""
    onnx = pytest.importorskip("onnx", reason="onnx builds the graphs for onnxruntime (extra: test)")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an oracle where installed (extra: test)")
    h, float32 = onnx.helper, onnx.TensorProto.FLOAT
    named = {f"x{i}": array for i, array in enumerate(inputs)}
    graph = h.make_graph(
        [h.make_node(op, list(named), ["y"], **attributes)],
        op,
        [h.make_tensor_value_info(name, float32, array.shape) for name, array in named.items()],
        [h.make_tensor_value_info("y", float32, None)],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, named)[0]
