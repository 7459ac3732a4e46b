"""The contestants: AlexNet in minigrad, PyTorch and onnxruntime, LeNet in the first two, from the same numbers.

Each function builds one of them, for a process of its own (peers.py), and returns what it can do by name: `step` is a
train step (forward, loss, backward, SGD with momentum), `launch` the same without a look at the loss, for which a card
would be waited for, `gradients` the loss and part of every gradient, `logits` part of what the net says about the
images.  Every library runs as it comes, on all cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from peers import cores, sampled

LAYERS = {  # name: shape of the weights, output positions per image
    "conv1": ((96, 3, 11, 11), 55 * 55),
    "conv2": ((256, 48, 5, 5), 27 * 27),
    "conv3": ((384, 256, 3, 3), 13 * 13),
    "conv4": ((384, 192, 3, 3), 13 * 13),
    "conv5": ((256, 192, 3, 3), 13 * 13),
    "fc6": ((4096, 9216), 1),
    "fc7": ((4096, 4096), 1),
    "fc8": ((1000, 4096), 1),
}
SGD = {"lr": 0.001, "momentum": 0.9}
DECAY = {"weight_decay": 5e-4}
_limits = ExitStack()  # what a contestant may use; never closed, so that it holds as long as its process


def gflop(layer: str, batch: int) -> tuple[float, float, float]:
    """Multiplications and additions, in 10^9: forward, the weights' gradient, the input's (images need none)."""
    shape, positions = LAYERS[layer]
    forward = 2 * float(np.prod(shape)) * positions * batch / 1e9
    return forward, forward, 0.0 if layer == "conv1" else forward


def start(batch: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in the one-device form, images (N, 3, 224, 224), labels: the same in every process."""
    rng = np.random.default_rng(0)
    state = {}
    for layer, (shape, _) in LAYERS.items():
        state[f"{layer}.weight"] = rng.standard_normal(shape, dtype="f") * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        state[f"{layer}.bias"] = np.full(shape[0], 0.1, "f")
    return state, rng.standard_normal((batch, 3, 224, 224), dtype="f"), rng.integers(0, 1000, batch)


def training(
    loss_of: Callable[[], Any], optimizer: Any, grads: Callable[[], dict[str, np.ndarray]]
) -> dict[str, Callable[[], Any]]:
    """What a contestant that learns can do, in the lines that PyTorch and minigrad share; grads: by parameter."""

    def passes() -> Any:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    def backward() -> float:
        return passes().item()

    def step() -> None:
        backward()
        optimizer.step()

    def launch() -> None:
        passes()
        optimizer.step()

    gradients = lambda: (backward(), sampled(grads()))  # noqa: E731
    return {"step": step, "launch": launch, "backward": backward, "gradients": gradients}


# ---------------------------------------------------------------- minigrad


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same images (N, C, H, W) in the memory order that minigrad's data loader makes."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def minigrad_alexnet(
    batch: int, devices: tuple[str, ...], dropout: float = 0.5, threads: int | None = None, in_turn: bool = False
) -> dict[str, Any]:
    """AlexNet on one device or as two columns; threads: per device; in_turn: one column after the other."""
    from alexnet import AlexNet, merged

    import minigrad
    import minigrad.functional as F
    from minigrad import Tensor, optim

    state, x, target = start(batch)
    net = AlexNet(preset="trainable", devices=devices, dropout=dropout)
    net.load_state_dict(state)
    images = Tensor(channels_last(x) if devices[0].startswith("cpu") else x, device=devices[0])
    optimizer = optim.SGD(net.parameters(), **SGD, **DECAY)
    learner = training(
        lambda: F.cross_entropy(net(images), target),
        optimizer,
        lambda: merged([{n: p.grad.numpy() for n, p in column.named_parameters()} for column in net.columns]),
    )
    for device in devices:
        minigrad.set_num_threads(threads, device)
    if threads == 1:
        _limits.enter_context(minigrad.processor.parallel.one_blas_thread())
    if in_turn:
        _limits.enter_context(minigrad.in_turn())

    def forward() -> Tensor:  # no contestant trains after it
        net.eval()
        with minigrad.no_grad():
            return net(images)

    # The layers whose weights are so large that they cost nearly the same however few the images are.
    column, features = net.columns[0], Tensor(np.maximum(x.reshape(batch, -1)[:, :9216], 0), requires_grad=True)

    def fully_connected() -> None:
        hidden = features
        for layer in (column.fc6, column.fc7, column.fc8):
            layer.zero_grad()
        for layer in (column.fc6, column.fc7):
            hidden = F.dropout(F.relu(layer(hidden)), dropout, True)
        F.cross_entropy(column.fc8(hidden), target).backward()

    return {
        **learner,
        "forward": forward,
        "logits": lambda: (0.0, {"logits": forward().numpy().copy()}),
        "update": optimizer.step,
        "fully connected": fully_connected,
    }


def minigrad_conv_stack(batch: int, size: int | None) -> dict[str, Any]:
    """conv1 to the last pooling, in chunks of `size` images on the device's threads; None: op by op, all images."""
    from alexnet import AlexNet

    import minigrad
    import minigrad.functional as F
    from minigrad import Tensor
    from minigrad.engine import Function

    state, x, _ = start(batch)
    column = AlexNet(devices=("cpu:0",), widths=(48, 128, 192, 192, 128, 1, 1)).columns[0]  # the smallest fc6 .. fc8
    column.load_state_dict(
        {**column.state_dict(), **{name: array for name, array in state.items() if name.startswith("conv")}}
    )
    images = Tensor(channels_last(x))
    dy = Tensor(np.random.default_rng(1).standard_normal((batch, 256, 6, 6), dtype="f"))
    parameters = {name: p for name, p in column.named_parameters() if name.startswith("conv")}

    def stack(x: Tensor) -> Tensor:
        x = F.max_pool2d(F.lrn(F.relu(column.conv1(x)), groups=2), 3, 2)
        x = F.max_pool2d(F.lrn(F.relu(column.conv2(x)), groups=2), 3, 2)
        x = F.relu(column.conv4(F.relu(column.conv3(x))))
        return F.max_pool2d(F.relu(column.conv5(x)), 3, 2)

    cpu_seconds = 0.0

    def step() -> float:
        nonlocal cpu_seconds
        begin = time.process_time()
        column.zero_grad()
        y = stack(images) if size is None else minigrad.in_chunks(stack, images, size=size)
        y.backward(dy)
        cpu_seconds = time.process_time() - begin
        return float(y.numpy().mean())

    def largest() -> int:
        """Bytes per image of the largest array that one op hands to the next."""
        nodes = [stack(Tensor(channels_last(x[:1]))).node]
        for node in nodes:  # parameters are no nodes
            nodes += [below for below in node.inputs if isinstance(below, Function)]
        return max(int(np.prod(node.shape)) * node.dtype.itemsize for node in nodes)

    return {
        "step": step,
        "cpu seconds": lambda: cpu_seconds,  # of the last step, all threads together
        "gradients": lambda: (step(), sampled({name: p.grad.numpy() for name, p in parameters.items()})),
        "largest": largest,
    }


def minigrad_lenet(batch: int, chunks: bool, device: str = "cpu:0") -> dict[str, Any]:
    """LeNet on 28 x 28 pixels, as it is or `in_chunks`."""
    import minigrad
    import minigrad.functional as F
    from minigrad import Tensor, nn, optim

    state, x, target = lenet_start(batch)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2, device=device), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5, device=device), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120, device=device), nn.ReLU(), nn.Linear(120, 84, device=device), nn.ReLU()),
        nn.Linear(84, 10, device=device),
    )
    net.load_state_dict(state)
    images = Tensor(channels_last(x) if device.startswith("cpu") else x, device=device)
    return training(
        lambda: F.cross_entropy(minigrad.in_chunks(net, images) if chunks else net(images), target),
        optim.SGD(net.parameters(), **SGD),
        lambda: {name: p.grad.numpy() for name, p in net.named_parameters()},
    )


# ---------------------------------------------------------------- PyTorch


def torch_net(w: Mapping[str, Any], dropout: float) -> Callable[[Any, bool], Any]:
    """AlexNet on one device, grouped, with these weights, as a function of images and whether it is being trained."""
    import torch.nn.functional as f

    def conv(name: str, h: Any, **kw: Any) -> Any:
        return f.relu(f.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **kw), inplace=True)

    def pool(h: Any) -> Any:
        return f.max_pool2d(h, 3, 2)

    def lrn(h: Any) -> Any:  # each column by itself: a free view; PyTorch divides alpha by n
        n, c, *size = h.shape
        return f.local_response_norm(h.view(2 * n, c // 2, *size), 5, alpha=5e-4, beta=0.75, k=2.0).view(h.shape)

    def net(h: Any, training: bool) -> Any:
        h = pool(lrn(conv("conv1", f.pad(h, (0, 3, 0, 3)), stride=4)))
        h = pool(lrn(conv("conv2", h, padding=2, groups=2)))
        h = conv("conv4", conv("conv3", h, padding=1), padding=1, groups=2)
        h = pool(conv("conv5", h, padding=1, groups=2)).flatten(1)
        for name in ("fc6", "fc7"):
            h = f.dropout(f.relu(f.linear(h, w[f"{name}.weight"], w[f"{name}.bias"]), inplace=True), dropout, training)
        return f.linear(h, w["fc8.weight"], w["fc8.bias"])

    return net


def torch_alexnet(batch: int, compiled: bool, dropout: float = 0.5, device: str = "cpu") -> dict[str, Any]:
    """AlexNet in PyTorch, eager, or compiled by inductor with the fused SGD."""
    import torch
    import torch.nn.functional as f

    state, x, target = start(batch)
    w = {name: torch.nn.Parameter(torch.from_numpy(array).to(device)) for name, array in state.items()}
    images, labels = torch.from_numpy(x).to(device), torch.from_numpy(target).to(device)
    optimizer = torch.optim.SGD(w.values(), **SGD, **DECAY, fused=compiled)
    net = torch_net(w, dropout)
    if compiled:
        # This pass of PyTorch 2.13 makes the gradients of all convolutions 0 at batch 32 and 128 (not at 16): it moves
        # the line that reads the last pooling's gradient before the line that fills it.
        net = torch.compile(net, options={"reorder_for_peak_memory": False})

    def forward(n: int | None = None) -> Any:
        with torch.inference_mode():
            return net(images[:n], False)

    return {
        **training(
            lambda: f.cross_entropy(net(images, True), labels),
            optimizer,
            lambda: {name: p.grad.cpu().numpy() for name, p in w.items()},
        ),
        "forward": forward,
        "logits": lambda: (0.0, {"logits": forward().cpu().numpy().copy()}),
    }


def torch_lenet(batch: int, device: str = "cpu") -> dict[str, Any]:
    """The same LeNet in PyTorch eager."""
    import torch
    from torch import nn

    state, x, target = lenet_start(batch)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    net.to(device)
    images, labels = torch.from_numpy(x).to(device), torch.from_numpy(target).to(device)
    return training(
        lambda: nn.functional.cross_entropy(net(images), labels),
        torch.optim.SGD(net.parameters(), **SGD),
        lambda: {name: p.grad.cpu().numpy() for name, p in net.named_parameters()},
    )


def lenet_start(batch: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights under the names of both Sequentials, images (N, 1, 28, 28), labels."""
    rng = np.random.default_rng(0)
    state = {}
    for i, shape in {0: (6, 1, 5, 5), 3: (16, 6, 5, 5), 7: (120, 400), 9: (84, 120), 11: (10, 84)}.items():
        state[f"{i}.weight"] = rng.standard_normal(shape, dtype="f") * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        state[f"{i}.bias"] = np.full(shape[0], 0.1, "f")
    return state, rng.standard_normal((batch, 1, 28, 28), dtype="f"), rng.integers(0, 10, batch)


# ---------------------------------------------------------------- onnxruntime


def onnx_alexnet(batch: int) -> dict[str, Any]:
    """AlexNet's inference as an ONNX graph of the same weights, for onnxruntime on all cores."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    state, x, _ = start(batch)
    nodes: list[Any] = []
    constants = [numpy_helper.from_array(array, name) for name, array in state.items()]

    def add(op: str, h: str, *more: str, **attributes: Any) -> str:
        """A node with one output; its name is returned, for the next node's input."""
        nodes.append(helper.make_node(op, [h, *more], [f"h{len(nodes)}"], **attributes))
        return f"h{len(nodes) - 1}"

    def reshape(h: str, *shape: int) -> str:
        constants.append(numpy_helper.from_array(np.array(shape), f"shape{len(nodes)}"))
        return add("Reshape", h, constants[-1].name)

    def conv(name: str, h: str, **attributes: Any) -> str:
        return add("Relu", add("Conv", h, f"{name}.weight", f"{name}.bias", **attributes))

    def pool(h: str) -> str:
        return add("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2])

    def lrn(h: str, c: int, size: int) -> str:  # each column by itself, by a view; ONNX divides alpha by n
        h = reshape(h, 2 * batch, c // 2, size, size)
        return reshape(add("LRN", h, size=5, alpha=5e-4, beta=0.75, bias=2.0), batch, c, size, size)

    h = pool(lrn(conv("conv1", "images", strides=[4, 4], pads=[0, 0, 3, 3]), 96, 55))
    h = pool(lrn(conv("conv2", h, pads=[2] * 4, group=2), 256, 27))
    h = conv("conv4", conv("conv3", h, pads=[1] * 4), pads=[1] * 4, group=2)
    h = add("Flatten", pool(conv("conv5", h, pads=[1] * 4, group=2)))
    for name in ("fc6", "fc7"):
        h = add("Relu", add("Gemm", h, f"{name}.weight", f"{name}.bias", transB=1))
    h = add("Gemm", h, "fc8.weight", "fc8.bias", transB=1)

    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "alexnet",
        [helper.make_tensor_value_info("images", float32, x.shape)],
        [helper.make_tensor_value_info(h, float32, [batch, 1000])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def forward() -> np.ndarray:
        return session.run(None, {"images": x})[0]

    return {"forward": forward, "logits": lambda: (0.0, {"logits": forward()})}


# ---------------------------------------------------------------- the floor


def matmul(n: int) -> dict[str, Any]:
    """An n x n by n x n product in float32, BLAS on all cores: as fast as this processor multiplies."""
    rng = np.random.default_rng(0)
    a, b, out = rng.standard_normal((n, n), dtype="f"), rng.standard_normal((n, n), dtype="f"), np.empty((n, n), "f")
    return {"step": lambda: np.matmul(a, b, out=out)}
