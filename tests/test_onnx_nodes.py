"""The official tests of ONNX's operators, by the standard's own runner: all that consist of operators that we have.

Each gives the right numbers, or is refused by an error of ours; which are refused is written here, with the reason.
"""

import re
import unittest

import pytest
from onnx_graphs import onnx

from minigrad.errors import MinigradError
from minigrad.onnx import Net
from minigrad.onnx.operators import OPERATORS
from minigrad.onnx.reading import graph_of

pytestmark = pytest.mark.slow  # making the cases, which onnx does in this process, takes longer than running them

REFUSED = {
    "only images (N, C, H, W) have windows": r"(averagepool|maxpool|convtranspose)_[13]d(_|$)|causal_conv_",
    "integers are not pooled": "maxpool_2d_uint8",
    "which elements were dropped is not told": "training_dropout(_default)?_mask$",
    "sequences and optional values": "identity_(sequence|opt)$",
}
RANDOM = "training_dropout(_default)?$"  # by another generator than ours


def backend():
    """minigrad as the runner wants it."""
    base = pytest.importorskip("onnx.backend.base")

    class Rep(base.BackendRep):
        def __init__(self, model):
            self.net = Net(graph_of(model, "a test", OPERATORS)).eval()

        def run(self, inputs, **_):
            results = self.net(*inputs)
            return tuple(y.numpy() for y in (results if isinstance(results, tuple) else [results]))

    class Backend(base.Backend):
        refused = None  # the error of ours that the last test has met

        @classmethod
        def prepare(cls, model, device="CPU", **_):
            try:
                rep = Rep(model)
            except MinigradError as error:
                cls.refused = error
                raise
            run = rep.run

            def told(*args, **kwargs):
                try:
                    return run(*args, **kwargs)
                except MinigradError as error:
                    cls.refused = error
                    raise

            rep.run = told
            return rep

        @classmethod
        def supports_device(cls, device):
            return device == "CPU"

    return Backend


def is_ours(model):
    """Only operators that we have, between numbers that we have."""
    types, graph = onnx.TensorProto, model.graph
    known = {types.FLOAT, types.DOUBLE, types.BOOL, types.INT32, types.INT64, types.INT8, types.UINT8}
    ends = [*graph.input, *graph.output]
    seen = {entry.type.tensor_type.elem_type for entry in ends if entry.type.HasField("tensor_type")}
    return seen <= known and all(
        (node.op_type in OPERATORS or node.op_type == "Constant") and not node.domain for node in graph.node
    )


@pytest.mark.filterwarnings("ignore")  # nan and inf are among the cases
def test_the_official_tests_of_our_operators():
    loader = pytest.importorskip("onnx.backend.test.loader")
    tests = pytest.importorskip("onnx.backend.test", reason="the official tests come with the package onnx")
    cases = loader.load_model_tests(kind="node")
    models = {case.name: case.model or onnx.load(f"{case.model_dir}/model.onnx") for case in cases}
    names = [name for name in sorted(models) if is_ours(models[name]) and not re.search(RANDOM, name)]
    ours = backend()
    suite = tests.BackendTest(ours, __name__).test_cases["OnnxBackendNodeModelTest"]
    right, wrong, refused = [], [], []
    for name in names:
        ours.refused, result = None, unittest.TestResult()
        suite(f"{name}_cpu").run(result)
        if result.wasSuccessful() and not result.skipped:
            right.append(name)
        elif ours.refused is not None and any(re.search(pattern, name) for pattern in REFUSED.values()):
            refused.append(name)
        else:
            wrong.append(f"{name}: {(result.failures + result.errors + result.skipped)[0][1][-500:]}")
    seen = {node.op_type for name in right for node in models[name].graph.node} & OPERATORS.keys()
    floats = [name for name in right if not name.endswith("_expanded")]
    print(
        f"{len(models)} tests; {len(names)} of our {len(OPERATORS)} operators alone: {len(right)} right ({len(floats)} "
        f"of a single operator), {len(refused)} refused, {len(wrong)} wrong"
    )
    assert not wrong, "\n".join(wrong)
    assert len(right) > 300 and seen == OPERATORS.keys()
