"""Hooks on modules: what they see, when they are called, and what they may change; PyTorch's are the oracle."""

import copy
import gc
import importlib
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, GraphError, Tensor, nn, no_grad
from minigrad.cudasim import compiler

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 2, 6, 6)).astype(np.float32)
OTHERS = RNG.standard_normal((4, 2, 6, 6)).astype(np.float32)


class Branches(nn.Module):
    """Two arguments, two outputs: y0 = conv(a) + b, y1 = relu(b)."""

    def __init__(self):
        self.conv, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()

    def forward(self, a, b):
        return self.conv(a) + b, self.relu(b)


class Net(nn.Module):
    def __init__(self):
        self.first, self.branches = nn.Conv2d(2, 2, 3, padding=1), Branches()
        self.pool, self.flat, self.last = nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)

    def forward(self, x):
        x = self.first(x)
        a, b = self.branches(x, x * 2)
        return self.last(self.flat(self.pool(a * b)))


def torch_net(torch, net):
    class TorchBranches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.ReLU()

        forward = Branches.forward

    class TorchNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.branches = torch.nn.Conv2d(2, 2, 3, padding=1), TorchBranches()
            self.pool, self.flat, self.last = torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(18, 3)

        forward = Net.forward

    other = TorchNet()
    other.load_state_dict({name: torch.tensor(value) for name, value in net.state_dict().items()})
    return other


def bare(value):
    """Tensors of either side as arrays, whatever holds them."""
    if isinstance(value, (tuple, list)):
        return [bare(one) for one in value]
    return None if value is None else np.asarray(value.detach().numpy())


def listen(net, seen):
    """Hooks of all three kinds on every module that note who they are and what they got."""
    for name, module in net.named_modules():
        module.register_forward_pre_hook(lambda m, a, n=name: seen.append((n, "before", bare(a))))
        module.register_forward_hook(lambda m, a, y, n=name: seen.append((n, "after", bare(a), bare(y))))
        module.register_full_backward_hook(lambda m, dx, dy, n=name: seen.append((n, "back", bare(dx), bare(dy))))


def assert_same(ours, theirs):
    if isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            assert_same(one, other)
    elif isinstance(ours, np.ndarray):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    else:
        assert ours == theirs


EMULATED = pytest.param(
    "cudasim:0", marks=[pytest.mark.slow, pytest.mark.skipif(bool(compiler.available()), reason="no emulator here")]
)


@pytest.mark.parametrize("device", ["cpu:0", "textbook:0", EMULATED])
def test_all_hooks_see_what_those_of_pytorch_see_in_the_same_order(device):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours, theirs = [], []
    net = Net()
    other = torch_net(torch, net)
    net.to(device)
    listen(net, ours)
    listen(other, theirs)
    F.cross_entropy(net(Tensor(IMAGES, device=device)), [0, 1, 2, 0]).backward()
    torch.nn.functional.cross_entropy(other(torch.tensor(IMAGES)), torch.tensor([0, 1, 2, 0])).backward()
    assert [event[:2] for event in ours if event[1] != "back"] == [e[:2] for e in theirs if e[1] != "back"]
    back, their_back = ([event[0] for event in events if event[1] == "back"] for events in (ours, theirs))
    # Of the modules inside of `branches`, whose ways do not depend on each other, each side has its own order.
    assert [*back[:4], back[-1]] == [*their_back[:4], their_back[-1]] == ["", "last", "flat", "pool", "first"]
    by_name = {event[:2]: event for event in theirs}
    assert len(ours) == len(by_name) == 24
    for event in ours:
        assert_same(event, by_name[event[:2]])
    assert by_name["first", "back"][2] == [None]  # the images need no gradient
    assert by_name["branches", "back"][2][1] is not None


def test_guided_backpropagation_as_in_pytorch():
    """A gradient replaced on its way: Springenberg et al. 2014, only positive gradients go back through a ReLU."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU())
    other = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU())
    other.load_state_dict({name: torch.tensor(value) for name, value in net.state_dict().items()})
    x, theirs = Tensor(IMAGES, requires_grad=True), torch.tensor(IMAGES, requires_grad=True)
    for i in (1, 3):
        net[i].register_full_backward_hook(lambda m, dx, dy: (F.relu(dx[0]),))
        net[i].register_full_backward_hook(lambda m, dx, dy: dx[0] * 2)  # sees what the one before has returned
        other[i].register_full_backward_hook(lambda m, dx, dy: (2 * torch.relu(dx[0]),))
    weights = np.cos(np.arange(32, dtype=np.float32)).reshape(4, 2, 2, 2)
    (net(x) * Tensor(weights)).sum().backward()
    (other(theirs) * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net[0].weight.grad.numpy(), other[0].weight.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_what_forward_hooks_return_takes_the_place_of_arguments_and_output():
    net = nn.Sequential(nn.ReLU())
    order = []
    first = net[0].register_forward_pre_hook(lambda m, args: order.append("pre 1") or args[0] * -1)
    net[0].register_forward_pre_hook(lambda m, args: order.append("pre 2") or (args[0] + 1,))
    net[0].register_forward_hook(lambda m, args, y: order.append(("post", args[0].numpy().tolist())) or y * 10)
    assert net(Tensor([1.0, -2.0])).numpy().tolist() == [0.0, 30.0]
    assert order == ["pre 1", "pre 2", ("post", [0.0, 3.0])]
    first.remove()
    first.remove()  # once more is nothing
    assert net(Tensor([1.0, -2.0])).numpy().tolist() == [20.0, 0.0]


def test_a_hook_ends_with_its_block_and_may_remove_itself():
    layer, calls = nn.ReLU(), []
    with layer.register_forward_hook(lambda m, args, y: calls.append("block")):
        layer(Tensor([1.0]))
        with pytest.raises(KeyError), layer.register_forward_hook(lambda m, args, y: {}["no"]):
            layer(Tensor([1.0]))
    once = layer.register_forward_hook(lambda m, args, y: (calls.append("once"), once.remove())[0])
    after = layer.register_forward_hook(lambda m, args, y: calls.append("after"))
    layer(Tensor([1.0]))
    layer(Tensor([1.0]))
    after.remove()
    layer(Tensor([1.0]))
    assert calls == ["block", "block", "once", "after", "after"]
    assert vars(layer) == {}  # as if there had never been one


def test_ops_in_a_backward_hook_record_nothing():
    layer, seen = nn.Linear(2, 2), []
    layer.register_full_backward_hook(lambda m, dx, dy: seen.append((dy[0] @ m.weight).requires_grad))
    layer(Tensor([[1.0, 2.0]])).sum().backward()
    assert seen == [False] and minigrad.is_grad_enabled()


def test_hooks_belong_to_the_object_and_are_no_part_of_the_model():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    teacher = nn.Linear(3, 2)

    class Compare:  # an object that holds a module would be refused as an attribute of the model
        def __init__(self):
            self.teacher, self.calls = teacher, 0

        def __call__(self, module, args, output):
            self.calls += 1

    compare = Compare()
    handle = net[0].register_forward_hook(compare)
    assert len(list(net.parameters())) == 2 and set(net.state_dict()) == {"0.weight", "0.bias"}
    twin = copy.deepcopy(net)
    twin(Tensor([[1.0, 2.0, 3.0]]))
    assert compare.calls == 0
    net(Tensor([[1.0, 2.0, 3.0]]))
    assert compare.calls == 1
    gone = weakref.ref(compare)
    del compare, net
    gc.collect()
    assert gone() is None  # the module is gone, and its hooks with it
    handle.remove()


def test_nothing_is_kept_alive_and_no_circle_is_made():
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda m, dx, dy: None)
    gc.collect()
    gc.disable()
    try:
        for back in (True, False):
            x = Tensor(np.ones((5, 3), np.float32), requires_grad=True)
            y = layer(x)
            node = weakref.ref(y)
            if back:
                y.sum().backward()
            del x, y
            assert node() is None
            assert gc.collect() == 0
    finally:
        gc.enable()


def test_under_no_grad_no_backward_is_seen_and_the_output_is_the_module_s_own():
    layer = nn.ReLU()
    layer.register_full_backward_hook(lambda m, dx, dy: pytest.fail("there was no backward"))
    with no_grad():
        assert layer(Tensor([1.0], requires_grad=True)).node is None
        flat = nn.Flatten(0)
        flat.forward = lambda x: {"any": "thing"}
        flat.register_full_backward_hook(lambda m, dx, dy: None)
        assert flat(Tensor([1.0])) == {"any": "thing"}
    assert layer(Tensor([-1.0])).numpy().tolist() == [0.0]


def test_outputs_that_get_no_gradient_and_arguments_that_none_reaches():
    class Two(nn.Module):
        def forward(self, a, b, c):
            return [a * 3, b.exp(), c]

    calls, two = [], Two()
    two.register_full_backward_hook(lambda m, dx, dy: calls.append((bare(dx), bare(dy))))
    a, b = (Tensor([value], requires_grad=True) for value in (1.0, 0.0))
    two(a, b, Tensor([7.0]))[0].sum().backward()
    assert calls == [([np.float32(3), None, None], [np.float32(1), None, None])]
    y = two(a, b, Tensor([7.0]))
    (y[0] + y[1] + y[2]).backward()
    assert calls[1:] == [([3, 1, None], [1, 1, None])]
    np.testing.assert_array_equal(a.grad.numpy(), [6])


def test_a_gradient_is_replaced_where_one_of_two_arguments_has_one():
    class Times(nn.Module):
        def forward(self, a, b):
            return a * b

    times, b = Times(), Tensor([3.0], requires_grad=True)
    times.register_full_backward_hook(lambda m, dx, dy: (dx[0], dx[1] * 100))
    times(Tensor([2.0]), b).sum().backward()
    assert b.grad.item() == 200


def test_a_layer_whose_arguments_need_no_gradient_waits_for_all_its_outputs():
    class Both(nn.Module):
        def __init__(self):
            self.w = nn.Parameter([2.0])

        def forward(self, x):
            return self.w * x, self.w + x, x

    calls, both = [], Both()
    both.register_full_backward_hook(lambda m, dx, dy: calls.append((dx, bare(dy))))
    a, b, _ = both(Tensor([5.0]))
    (a * 3 + b * 4).backward()
    assert calls == [((None,), [3, 4, None])] and both.w.grad.item() == 19


def test_named_tuples_and_keyword_arguments_go_through():
    from collections import namedtuple

    Pair = namedtuple("Pair", "a b")

    class Layer(nn.Module):
        def forward(self, x, scale=1):
            return Pair(x * scale, x)

    layer = Layer()
    assert layer(Tensor([2.0]), scale=5).a.item() == 10
    layer.register_full_backward_hook(lambda m, dx, dy: None)
    pair = layer(Tensor([2.0], requires_grad=True), scale=5)
    assert type(pair) is Pair and pair.a.item() == 10


@pytest.mark.parametrize("hook", [3, None, "print", nn.ReLU])
def test_what_is_no_function_is_refused(hook):
    layer = nn.ReLU()
    if hook is nn.ReLU:
        layer.register_forward_hook(hook)  # a class can be called
        return
    for register in layer.register_forward_hook, layer.register_forward_pre_hook, layer.register_full_backward_hook:
        with pytest.raises(ArgumentError, match="ReLU: a hook must be a function, got .*: give its name, without"):
            register(hook)


def refused(layer, hook, match, *args):
    args = args or (Tensor([1.0, 2.0], requires_grad=True),)
    with layer.register_full_backward_hook(hook):
        with pytest.raises(GraphError, match=match):
            y = layer(*args) * 2
            (y * y).sum().backward()
    assert all(arg.grad is None for arg in args)


def test_backward_hooks_that_do_wrong():
    class Plus(nn.Module):
        def forward(self, a, b):
            return a + b

    class Words(nn.Module):
        def forward(self, x):
            return {"x": x}

    def in_place(module, dx, dy):
        dy[0][...] = 0.0

    relu, a, b = nn.ReLU(), *(Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    refused(relu, in_place, "ReLU: a backward hook has changed a gradient in place")
    refused(Plus(), in_place, "Plus: a backward hook has changed a gradient in place", a, b)
    refused(relu, lambda m, dx, dy: dx + dx, r"ReLU: .* must return a Tensor in the place of grad_input\[0\], and None")
    refused(relu, lambda m, dx, dy: (None,), r"it returned \['NoneType'\]")
    refused(relu, lambda m, dx, dy: np.ones(2), r"it returned \['ndarray'\]")
    refused(
        relu, lambda m, dx, dy: dx[0].sum(), r"like grad_input\[0\], \(2,\) float32 on cpu:0, it returned \(\) float32"
    )
    refused(relu, lambda m, dx, dy: dx[0].astype("float64"), r"it returned \(2,\) float64")
    refused(relu, lambda m, dx, dy: dx[0].to("cpu:1"), r"it returned .* on cpu:1")
    refused(
        Plus(), lambda m, dx, dy: (dx[0] * 2, None), "Plus: more than one argument of this call needs a gradient", a, b
    )
    refused(Words(), lambda m, dx, dy: dx, "Words: a backward hook needs an output that is a Tensor.* has a dict")
    linear = nn.Linear(2, 1)
    with linear.register_full_backward_hook(lambda m, dx, dy: dx):  # (None,), as it was
        linear(Tensor([[1.0, 2.0]])).sum().backward()
    with (plus := Plus()).register_full_backward_hook(lambda m, dx, dy: dx):
        plus(a, b).sum().backward()
    assert (a.grad + b.grad).numpy().tolist() == [2, 2] and linear.weight.grad.numpy().tolist() == [[1, 2]]
    linear.zero_grad()
    refused(linear, lambda m, dx, dy: dy, "Linear: no argument of this call needs a gradient", Tensor([[1.0, 2.0]]))
    assert linear.weight.grad is None


def test_a_gradient_that_a_hook_keeps_stays_as_it_was():
    layer, kept = nn.ReLU(), []
    layer.register_full_backward_hook(lambda m, dx, dy: kept.append((dx[0], dy[0])))
    x = Tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        layer(x).sum().backward()  # the second adds into x.grad
    assert x.grad.numpy().tolist() == [2, 2]
    assert [[g.numpy().tolist() for g in pair] for pair in kept] == [[[1, 1]] * 2] * 2
    fixed = Tensor([5.0, 5.0])
    layer.register_full_backward_hook(lambda m, dx, dy: fixed)
    x.grad = None
    for _ in range(2):
        layer(x).sum().backward()
    assert fixed.numpy().tolist() == [5, 5] and x.grad.numpy().tolist() == [10, 10]


def test_in_chunks_hooks_see_each_chunk_and_whole_batches_all():
    minigrad.set_num_threads(2)
    net, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), Tensor(IMAGES, requires_grad=True)
    seen = []
    net[1].register_full_backward_hook(lambda m, dx, dy: seen.append((len(dx[0]), dx[0].numpy().copy())))
    (minigrad.in_chunks(net, x, size=1) * Tensor(np.arange(4.0, dtype=np.float32).reshape(4, 1, 1, 1))).sum().backward()
    in_parts = x.grad.numpy().copy()
    assert [n for n, _ in seen] == [1, 1, 1, 1]
    parts = sorted((part.max(), part) for _, part in seen)
    x.grad = None
    del seen[:]
    with minigrad.whole_batches():
        y = minigrad.in_chunks(net, x, size=1) * Tensor(np.arange(4.0, dtype=np.float32).reshape(4, 1, 1, 1))
        y.sum().backward()
    assert [n for n, _ in seen] == [4]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), seen[0][1])
    np.testing.assert_allclose(x.grad.numpy(), in_parts, rtol=1e-6)


@pytest.fixture
def alexnet():
    examples = str(Path(__file__).parent.parent / "examples")
    sys.path.insert(0, examples)
    yield importlib.import_module("alexnet")
    sys.path.remove(examples)


def test_the_two_columns_of_alexnet_with_hooks_on_every_layer(alexnet):
    """Both devices at the same time, and the gradients are those without hooks."""
    widths, images = (2, 4, 4, 4, 4, 8, 8), Tensor(RNG.standard_normal((2, 3, 224, 224)).astype(np.float32))
    net = alexnet.AlexNet(5, "trainable", widths=widths)
    net.eval()
    F.cross_entropy(net(images), [0, 1]).backward()
    plain = [p.grad.numpy().copy() for p in net.parameters()]
    net.zero_grad()
    seen = []
    for name, module in net.named_modules():
        module.register_full_backward_hook(lambda m, dx, dy, n=name: seen.append((n, dx[0], dy[0])))
    F.cross_entropy(net(images), [0, 1]).backward()
    layers = [f"columns.{i}.{layer}" for i in (0, 1) for layer in alexnet.LAYERS[: 8 - i]]
    assert sorted(n for n, _, _ in seen) == sorted(["", *layers])
    for name, _, dy in seen:
        assert name == "" or str(dy.device) == f"cpu:{name[8]}"
    for gradient, parameter in zip(plain, net.parameters()):
        np.testing.assert_array_equal(gradient, parameter.grad.numpy())
