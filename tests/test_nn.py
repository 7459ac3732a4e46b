"""Modules and layers: names, state, devices, switches, printing; against functions, PyTorch, differences."""

import collections
import copy
import pickle
from functools import partial

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import (
    ArgumentError,
    CheckpointError,
    DeviceError,
    DTypeError,
    GraphError,
    Tensor,
    gradcheck,
    nn,
    optim,
)


class Net(nn.Module):
    def __init__(self, device=None, dtype=None):
        self.features = nn.Sequential(
            conv=nn.Conv2d(2, 4, 3, padding=1, groups=2, device=device, dtype=dtype),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(3, 2),
        )
        self.heads = [
            nn.Linear(36, 5, device=device, dtype=dtype),
            nn.Linear(5, 3, bias=False, device=device, dtype=dtype),
        ]
        self.scale = nn.Parameter(np.ones(3, "float32" if dtype is None else dtype), device=device)
        self.drop = nn.Dropout(0.5)
        self.note = "not a module"

    def forward(self, x):
        x = self.features(x).flatten(1)
        return self.heads[1](self.drop(self.heads[0](x).tanh())) * self.scale


NAMES = [
    "scale",
    "features.conv.weight",
    "features.conv.bias",
    "heads.0.weight",
    "heads.0.bias",
    "heads.1.weight",
]


def image(device=None, dtype="float32", n=2):
    return Tensor(np.random.default_rng(0).standard_normal((n, 2, 7, 7)).astype(dtype), device=device)


# ---------------------------------------------------------------- parameters


def test_parameter():
    p = nn.Parameter([1.0, 2.0], device="cpu:1", dtype="float64")
    assert isinstance(p, Tensor) and p.requires_grad and p.is_leaf and p.dtype == "float64" and str(p.device) == "cpu:1"
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    assert not isinstance(p * 2, nn.Parameter)
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
        nn.Parameter([1, 2])


# ---------------------------------------------------------------- the tree


def test_names():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert all(a is b for a, b in zip(net.parameters(), dict(net.named_parameters()).values()))
    assert [name for name, _ in net.named_children()] == ["features", "heads.0", "heads.1", "drop"]
    assert [name for name, _ in net.named_modules()] == [
        "", "features", "features.conv", "features.relu", "features.pool", "heads.0", "heads.1", "drop",
    ]  # fmt: skip
    assert list(net.children())[0] is net.features and next(net.modules()) is net
    assert net.num_parameters() == 4 * 9 + 4 + 36 * 5 + 5 + 15 + 3


def test_shared_parts_count_once_and_cycles_end():
    net = nn.Module()
    net.a = nn.Linear(2, 3)
    net.b = net.a
    net.c = nn.Module()
    net.c.tied, net.c.parent = net.a.weight, net
    assert [name for name, _ in net.named_parameters()] == ["a.weight", "a.bias"]
    assert [name for name, _ in net.named_modules()] == ["", "a", "c"]


class Block(nn.Module):
    """Layers and parameters in containers of every kind that is walked."""

    def __init__(self):
        self.rows = [[nn.Linear(2, 3)], (nn.Linear(3, 4), [nn.Dropout(0.5)])]
        self.named = {"key": nn.Linear(4, 5), "scales": {1: nn.Parameter(np.ones(5, "f")), "x": [nn.ReLU()]}}
        self.queue = collections.deque([nn.Linear(5, 1)])
        self.options = {"sizes": [1, 2, {3}], "table": np.ones(3), "mask": Tensor([1.0]), None: "any key will do"}

    def forward(self, x):
        x = self.rows[1][0](self.rows[0][0](x))
        return self.queue[0](self.named["scales"]["x"][0](self.named["key"](x) * self.named["scales"][1]))


IN_CONTAINERS = [
    "named.scales.1", "rows.0.0.weight", "rows.0.0.bias", "rows.1.0.weight", "rows.1.0.bias",
    "named.key.weight", "named.key.bias", "queue.0.weight", "queue.0.bias",
]  # fmt: skip


def test_parts_in_containers_in_containers_are_found():
    net = Block()
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()] == IN_CONTAINERS
    assert [name for name, _ in net.named_children()] == [
        "rows.0.0", "rows.1.0", "rows.1.1.0", "named.key", "named.scales.x.0", "queue.0",
    ]  # fmt: skip
    assert net.num_parameters() == 9 + 16 + 25 + 5 + 6 and "  rows.1.1.0: Dropout" in str(net)
    net.eval()
    assert not net.rows[1][1][0].training and not net.queue[0].training
    x = Tensor(np.ones((3, 2), "f"))
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    before = net.state_dict()
    optim.SGD(net.parameters(), 0.1).step()
    assert all((value != before[name]).any() for name, value in net.state_dict().items())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    other = Block()
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other(x).numpy(), net(x).numpy())
    other.to("cpu:1")
    np.testing.assert_array_equal(other(Tensor(x, device="cpu:1")).numpy(), net(x).numpy())


def test_names_in_containers_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    ours, theirs = nn.Module(), torch.nn.Module()
    ours.layers = [[nn.Linear(1, 1), nn.Linear(1, 1)], [nn.Linear(1, 1)]]
    ours.blocks = {"key": nn.Linear(1, 1), "more": {"b": nn.Linear(1, 1)}}
    ours.weights = [nn.Parameter([1.0]), nn.Parameter([2.0])]
    lists, linear = torch.nn.ModuleList, lambda: torch.nn.Linear(1, 1)
    theirs.layers = lists([lists([linear(), linear()]), lists([linear()])])
    theirs.blocks = torch.nn.ModuleDict({"key": linear(), "more": torch.nn.ModuleDict({"b": linear()})})
    theirs.weights = torch.nn.ParameterList([torch.ones(1), torch.ones(1)])
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())


def test_containers_may_share_and_hold_themselves():
    net, fc = nn.Module(), nn.Linear(2, 2)
    net.layers = [fc, {"again": fc}]
    net.layers.append(net.layers)
    net.names = {"fc": fc, "net": net}
    net.names["names"] = net.names
    assert list(net.state_dict()) == ["layers.0.weight", "layers.0.bias"] and net.num_parameters() == 6
    assert [name for name, _ in net.named_modules()] == ["", "layers.0"]


class Holder:
    def __init__(self, *parts):
        self.parts, self.note = parts, "a plain object"


class Slotted:
    __slots__ = ("empty", "part")


def slotted(part):
    holder = Slotted()
    holder.part = part
    return holder


def objects(*parts):
    array = np.empty(len(parts), object)
    array[:] = parts
    return array


@pytest.mark.parametrize("part", [lambda: nn.Dropout(), lambda: nn.Parameter([1.0])], ids=["module", "parameter"])
@pytest.mark.parametrize(
    "hold, message",
    [
        (lambda x: {x}, "held is a set, in which parameters and modules have no names"),
        (lambda x: [[frozenset([x])]], "held.0.0 is a frozenset, in which"),
        (lambda x: {"a": x}.values(), "held is a dict_values, in which"),
        (lambda x: objects(x), "held is a ndarray, in which"),
        (lambda x: {x: "fast"}, "held is a dict with a Module as a key: keep it as a value too"),
        (lambda x: (y for y in [x]), "held is a generator, which can be looked through only once: make it a list"),
        (lambda x: map(str, [x]), "held is a map, which can be looked"),
        (lambda x: {"a": iter([x])}, "held.a is a list_iterator, which can be looked"),
        (lambda x: Holder(1, x), "held.parts.1 is a .* in a Holder, which is no Module"),
        (lambda x: {"a": Holder([x])}, "held.a.parts.0.0 is a .* in a Holder, which is no Module"),
        (lambda x: slotted(x), "held.part is a .* in a Slotted, which is no Module"),
        (lambda x: collections.UserDict(a=x), "held.data.a is a .* in a UserDict"),
        (lambda x: {"a.b": x}, "held has a key 'a.b' that cannot be part of a name"),
        (lambda x: {"": x}, "held has a key '' that cannot"),
        (lambda x: [{(1, 2): x}], r"held.0 has a key \(1, 2\) that cannot"),
        (lambda x: {True: [x]}, "held has a key True that cannot"),
    ],
)
def test_what_is_held_out_of_sight_is_refused(hold, message, part):
    def net():
        net = nn.Module()
        net.inner = nn.Module()
        net.inner.held = hold(part())
        return net

    for walk in (
        nn.Module.named_parameters, nn.Module.parameters, nn.Module.named_modules, nn.Module.eval, nn.Module.state_dict,
        nn.Module.zero_grad, nn.Module.num_parameters, lambda m: m.to("cpu:1"), lambda m: m.load_state_dict({}), str,
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=r"^Module: (inner\.)?" + message):
            walk(net())


def test_two_parts_of_one_name_are_refused():
    net = nn.Module()
    net.blocks = {0: nn.Linear(1, 1), "0": nn.Linear(1, 1)}
    with pytest.raises(ArgumentError, match="Module: two Linears have the name 'blocks.0'"):
        net.parameters()
    net.blocks = {0: nn.Parameter([1.0]), "0": nn.Parameter([1.0])}
    with pytest.raises(ArgumentError, match="Module: two Parameters have the name 'blocks.0'"):
        net.parameters()
    net.blocks = nn.Module()
    net.blocks.fc = nn.Linear(1, 1)
    setattr(net, "blocks.fc", nn.Linear(1, 1))
    with pytest.raises(ArgumentError, match="two Linears have the name 'blocks.fc'"):
        net.state_dict()


def test_a_tensor_that_wants_a_gradient_is_to_be_a_parameter():
    net = nn.Module()
    for net.held in (Tensor([1.0], requires_grad=True), {"a": [Tensor([1.0], requires_grad=True)]}):
        with pytest.raises(ArgumentError, match=r"held.* is a Tensor that requires a gradient, but no Parameter"):
            net.parameters()
    x = Tensor([1.0], requires_grad=True)
    net.held = [x * 2, x.detach(), Tensor([1])]  # an activation that was kept, and constants
    assert list(net.parameters()) == []


def test_what_holds_parts_found_elsewhere_is_no_matter():
    net = nn.Module()
    net.fc = nn.Linear(2, 2)
    net.optimizer = optim.SGD(net.parameters(), 0.1)
    net.trainer, net.by_layer, net.done = Holder(net, net.fc), {net.fc: 0.1}, {net.fc.weight}
    net.teacher = lambda: teacher  # no part of it
    teacher = nn.Linear(3, 3)
    assert list(net.state_dict()) == ["fc.weight", "fc.bias"]
    assert list(net.children()) == [net.fc]


def test_parts_of_the_class_are_refused():
    with pytest.raises(ArgumentError, match="Shared.layers.0 is a Linear of the class, .*: set it in __init__"):

        class Shared(nn.Module):
            layers = [nn.Linear(2, 2)]

    with pytest.raises(ArgumentError, match="Slots: parameters and modules in __slots__ are not found"):

        class Slots(nn.Module):
            __slots__ = ("fc",)

    class Net(nn.Module):
        kind, sizes, act = nn.Linear, {"a": [1, 2]}, F.relu

    assert list(Net().parameters()) == []


def test_replacing_and_deleting_attributes():
    net = Net()
    net.heads = net.heads[:1]
    net.scale = None
    del net.features
    assert [name for name, _ in net.named_parameters()] == ["heads.0.weight", "heads.0.bias"]


def test_train_and_eval_reach_everything():
    net = Net()
    assert net.training and net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net and all(module.training for module in net.modules())
    x = image()
    np.testing.assert_array_equal(net.eval()(x).numpy(), net(x).numpy())
    assert (net.train()(x).numpy() != net(x).numpy()).any()


def test_zero_grad():
    net = Net()
    net(image()).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_printing():
    lines = str(Net()).splitlines()
    assert lines[0] == "Net()  243 parameters"
    assert lines[1:4] == [
        "  features: Sequential()  40 parameters",
        "    conv: Conv2d(2, 4, kernel_size=(3, 3), padding=1, groups=2)  40 parameters",
        "    relu: ReLU()",
    ]
    assert "  heads.1: Linear(5, 3, bias=False)  15 parameters" in lines
    assert "  drop: Dropout(p=0.5, form='inverted')" in lines
    assert "6,060 parameters" in str(nn.Linear(100, 60))
    assert str(nn.Conv2d(1, 2, 1, bias=False)) == "Conv2d(1, 2, kernel_size=(1, 1), bias=False)  2 parameters"


def test_forward_is_to_be_defined():
    with pytest.raises(NotImplementedError, match="Module: define forward"):
        nn.Module()(1)


# ---------------------------------------------------------------- devices and copies


def test_to_moves_parameters_in_place():
    net, x = Net("cpu:0"), image("cpu:0")
    net.eval()
    before, parameters = net(x).numpy(), list(net.parameters())
    arrays = [p.data for p in parameters]
    net(x).sum().backward()
    assert net.to("cpu:1") is net
    for old, array, new in zip(parameters, arrays, net.parameters()):
        assert old is new and str(new.device) == "cpu:1" and new.grad is None and new.requires_grad
        assert not np.shares_memory(array, new.data)
    np.testing.assert_array_equal(net(image("cpu:1")).numpy(), before)
    net(image("cpu:1")).sum().backward()
    assert all(p.grad.device is p.device for p in parameters)
    optim.SGD(parameters, 0.1).step()
    gradient = parameters[0].grad
    net.to("cpu:1")
    assert parameters[0].grad is gradient  # there already: untouched


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), float])
def test_to_converts_parameters_in_place(dtype):
    net, x = Net("cpu:1").eval(), image("cpu:1")
    net.heads[0].weight.requires_grad = False
    before, parameters = net.state_dict(), list(net.parameters())
    net(x).sum().backward()
    assert net.to(dtype) is net
    for (name, new), old in zip(net.named_parameters(), parameters):
        assert old is new and new.dtype == "float64" and str(new.device) == "cpu:1" and new.grad is None
        assert new.requires_grad == (name != "heads.0.weight")
        assert new.numpy().tobytes() == before[name].astype("float64").tobytes()
    assert net(x.astype("float64")).dtype == "float64"
    net.to("cpu:0", "float32")
    assert {(str(p.device), str(p.dtype)) for p in parameters} == {("cpu:0", "float32")}
    assert all(array.tobytes() == before[name].tobytes() for name, array in net.state_dict().items())
    net(image("cpu:0")).sum().backward()
    gradient = parameters[-1].grad
    net.to(dtype="float32").to("cpu:0")
    assert parameters[-1].grad is gradient  # of that type and there already: untouched
    for wrong in ("float16", "int64", np.bool_):
        with pytest.raises(DTypeError, match="Net.to: parameters are float32 or float64, got"):
            net.to(wrong)
    with pytest.raises(DTypeError, match="Net.to: parameters are float32 or float64, got 'cpu:1'"):
        net.to("cpu:1", "cpu:1")
    for wrong in ("gpu:0", 5, "float63"):
        with pytest.raises(DeviceError, match="device: expected a name such as 'cpu:0'"):
            net.to(wrong)
    assert {(str(p.device), str(p.dtype)) for p in parameters} == {("cpu:0", "float32")}


def test_to_converts_buffers_of_floats_alone():
    net = nn.Sequential(nn.BatchNorm1d(3))
    net(Tensor(np.random.default_rng(0).standard_normal((5, 3)), dtype="float32"))
    before = net.state_dict()
    after = net.to("float64").state_dict()
    assert {name: str(array.dtype) for name, array in after.items()} == {
        "0.weight": "float64", "0.bias": "float64", "0.running_mean": "float64", "0.running_var": "float64",
        "0.num_batches_tracked": "int64",
    }  # fmt: skip
    assert all((array == before[name]).all() for name, array in after.items()) and before["0.num_batches_tracked"] == 1


@pytest.mark.parametrize("make", [partial(optim.SGD, lr=0.1, momentum=0.9), partial(optim.Adam, lr=0.1)])
def test_an_optimiser_goes_on_in_another_element_type(make):
    """Two steps, the second in float64: as with a state that was float64 from the start."""
    w = np.random.default_rng(0).standard_normal((3, 2))
    trained = []
    for early in (False, True):
        net = nn.Linear(2, 3, bias=False)
        net.load_state_dict({"weight": w.astype("f")})
        net.to("float64" if early else "float32")
        optimizer = make(net.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            (net(Tensor(np.ones((1, 2)), dtype=net.weight.dtype)) ** 2).sum().backward()
            optimizer.step()
            net.to("float64")
        trained.append(net.weight.numpy())
        assert all(array.dtype == "float64" for array in optimizer.state_dict()["arrays"].values())
    np.testing.assert_allclose(*trained, rtol=1e-5)
    assert np.abs(trained[0] - w).max() > 0.05


def test_layers_are_made_where_and_as_told():
    net = Net("cpu:1", "float64")
    assert {str(p.device) for p in net.parameters()} == {"cpu:1"} and {str(p.dtype) for p in net.parameters()} == {
        "float64"
    }
    minigrad.set_default_devices("cpu:1")
    assert {str(p.device) for p in Net().parameters()} == {"cpu:1"}
    assert {str(p.dtype) for p in Net().parameters()} == {"float32"}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_independent(duplicate):
    net = Net().eval()
    other, x = duplicate(net), image()
    expected = net(x).numpy().copy()
    np.testing.assert_array_equal(other(x).numpy(), expected)
    minigrad.init.zeros_(net.scale)
    np.testing.assert_array_equal(other(x).numpy(), expected)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in other.parameters())


# ---------------------------------------------------------------- state


def test_state_goes_from_one_net_to_another():
    one, other, x = Net().eval(), Net().eval(), image()
    state = one.state_dict()
    assert list(state) == NAMES and all(isinstance(value, np.ndarray) for value in state.values())
    assert (one(x).numpy() != other(x).numpy()).any()
    arrays, versions = [p.data for p in other.parameters()], [p.version.value for p in other.parameters()]
    other.load_state_dict(state)
    np.testing.assert_array_equal(one(x).numpy(), other(x).numpy())
    assert all(p.data is a and p.version.value == v + 1 for p, a, v in zip(other.parameters(), arrays, versions))
    other.load_state_dict({name: Tensor(value, dtype="float64", device="cpu:1") for name, value in state.items()})
    np.testing.assert_array_equal(one(x).numpy(), other(x).numpy())
    assert {str(p.dtype) for p in other.parameters()} == {"float32"}


def test_state_is_a_copy_in_both_directions():
    net = Net()
    state = net.state_dict()
    minigrad.init.zeros_(net.scale)
    assert (state["scale"] == 1).all()
    net.load_state_dict(state)
    state["scale"][:] = 5
    assert (net.scale.numpy() == 1).all()


def test_state_that_does_not_fit_is_listed_in_full_and_changes_nothing():
    net = Net()
    before = net.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    del state["scale"], state["heads.0.bias"]
    state.update(
        {
            "heads.0.weight": np.zeros((36, 5)),
            "heads.1.weight": np.array([["a"] * 5] * 3),
            "fc9.weight": np.zeros(2),
        }
    )
    with pytest.raises(CheckpointError) as error:
        net.load_state_dict(state)
    text = str(error.value)
    for line in [
        "5 name(s) do not fit Net",
        "missing: scale (3,)",
        "missing: heads.0.bias (5,)",
        "unexpected: fc9.weight (2,)",
        "wrong shape: heads.0.weight is (36, 5), the model has (5, 36)",
        "wrong type: heads.1.weight is <U1",
    ]:
        assert line in text
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


# ---------------------------------------------------------------- Sequential


def test_sequential_by_position():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = Tensor(np.random.default_rng(0).standard_normal((5, 3)).astype("float32"))
    assert [name for name, _ in net.named_children()] == ["0", "1", "2"] and len(net) == 3
    assert list(net) == [net[0], net[1], net[2]] and net[-1] is net[2] and net["1"] is net[1]
    np.testing.assert_array_equal(net(x).numpy(), net[2](F.relu(net[0](x))).numpy())
    part = net[1:]
    assert isinstance(part, nn.Sequential) and list(part) == list(net)[1:]
    assert list(part.state_dict()) == ["2.weight", "2.bias"]
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(KeyError):
        net["fc"]
    assert nn.Sequential()(x) is x


def test_sequential_by_name():
    fc, relu = nn.Linear(3, 4), nn.ReLU()
    for net in (
        nn.Sequential(fc=fc, relu=relu),
        nn.Sequential({"fc": fc, "relu": relu}),
        nn.Sequential({"fc": fc}, relu=relu),
    ):
        assert list(net.state_dict()) == ["fc.weight", "fc.bias"] and net.fc is fc and net["relu"] is relu
    twice = nn.Sequential(a=fc, b=relu, c=nn.Linear(4, 3), d=relu)
    assert len(twice) == 4 and list(twice)[3] is relu


class Counting(nn.Module):
    def __init__(self, device=None):
        self.mean = nn.Buffer([1.0, 2.0], device)
        self.fc = nn.Linear(2, 2, device=device)
        self.kept = [nn.Buffer(np.array(7, np.int64), device)]
        self.same = self.mean


def test_buffers_are_saved_and_moved_but_not_trained(device):
    net = Counting(device)
    assert [name for name, _ in net.named_buffers()] == ["mean", "kept.0"]
    assert list(net.buffers()) == [net.mean, net.kept[0]]
    assert [name for name, _ in net.named_parameters()] == ["fc.weight", "fc.bias"] and net.num_parameters() == 6
    assert list(net.state_dict()) == ["mean", "kept.0", "fc.weight", "fc.bias"]
    assert net.state_dict()["kept.0"].dtype == np.int64 and not net.mean.requires_grad
    other = Counting(device)
    with minigrad.no_grad():
        net.mean *= 3.0
        net.kept[0] += 1
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other.mean.numpy(), [3, 6])
    assert other.kept[0].item() == 8 and other.kept[0].dtype == np.int64 and type(other.mean) is nn.Buffer
    for name in ("cpu:1", device):
        held = other.mean
        other.to(name)
        assert other.mean is held and {str(b.device) for b in other.buffers()} == {name}
        np.testing.assert_array_equal(other.mean.numpy(), [3, 6])
    twin = pickle.loads(pickle.dumps(other))
    assert type(twin.kept[0]) is nn.Buffer and twin.mean is twin.same and twin.mean is not other.mean


def test_buffers_of_integers_take_integers_and_others_none(tmp_path):
    net = Counting()
    state = net.state_dict()
    for name, wrong in (("kept.0", np.array(7.0)), ("mean", np.array([1, 2]))):
        with pytest.raises(CheckpointError, match=rf"wrong type: {name} is (float|int)64, the model has"):
            net.load_state_dict({**state, name: wrong})
    net.load_state_dict({**state, "kept.0": np.array(9, np.uint8)})
    minigrad.checkpoint.save(tmp_path / "w", net.state_dict())
    again = Counting()
    again.load_state_dict(minigrad.checkpoint.load(tmp_path / "w")[0])
    assert again.kept[0].item() == 9 and again.kept[0].shape == ()


def test_a_buffer_stays_a_buffer():
    net = Counting()
    with pytest.raises(GraphError, match=r"Counting.mean is a Buffer, and another tensor would take its place"):
        net.mean = Tensor([1.0, 2.0])
    with pytest.raises(GraphError, match="a Buffer is not trained: make it a Parameter"):
        net.mean.requires_grad_()
    net.mean.requires_grad_(False)
    net.mean = nn.Buffer([5.0, 6.0])
    with pytest.raises(minigrad.ArgumentError, match="Holding: held is a set, in which .* have no names"):
        Holding({nn.Buffer([1.0])}).state_dict()


class Holding(nn.Module):
    def __init__(self, held):
        self.held = held


@pytest.mark.parametrize("name", ["forward", "training", "a.b", "", "fc"])
def test_sequential_refuses_names(name):
    with pytest.raises(ArgumentError, match=f"Sequential: a module cannot be named '{name}'"):
        nn.Sequential({"fc": nn.ReLU()}, {name: nn.ReLU()})


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(ArgumentError, match="Sequential: 1 must be a Module, got type"):
        nn.Sequential(nn.ReLU(), nn.Tanh)


# ---------------------------------------------------------------- layers


def test_initial_weights():
    minigrad.manual_seed(3)
    conv, fc = nn.Conv2d(20, 100, 5, groups=2), nn.Linear(300, 200)
    assert conv.weight.shape == (100, 10, 5, 5) and conv.bias.shape == (100,) and fc.weight.shape == (200, 300)
    assert conv.weight.numpy().std() == pytest.approx(np.sqrt(2 / 250), rel=0.05)
    assert fc.weight.numpy().std() == pytest.approx(np.sqrt(2 / 300), rel=0.05)
    assert not conv.bias.numpy().any() and not fc.bias.numpy().any() and nn.Linear(2, 2, bias=False).bias is None
    minigrad.manual_seed(3)
    np.testing.assert_array_equal(nn.Conv2d(20, 100, 5, groups=2).weight.numpy(), conv.weight.numpy())


# Settings that differ from the functions' defaults, so that one that is not passed on shows.
@pytest.mark.parametrize(
    "layer, function",
    [
        (nn.ReLU(), F.relu),
        (nn.Tanh(), F.tanh),
        (nn.Sigmoid(), F.sigmoid),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
        (nn.MaxPool2d(2), lambda x: F.max_pool2d(x, 2, 2)),
        (nn.AvgPool2d(3, 2, 1, True, False), lambda x: F.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d((2, 3)), lambda x: F.avg_pool2d(x, (2, 3), (2, 3))),
        (nn.LRN(3, 1.5, 0.3, 0.6, 2), lambda x: F.lrn(x, 3, 1.5, 0.3, 0.6, 2)),
        (nn.LRN(), F.lrn),
        (nn.LRNWithinMap(3, 1.5, 0.3, 0.6), lambda x: F.lrn_within_map(x, 3, 1.5, 0.3, 0.6)),
        (nn.LRNWithinMap(), F.lrn_within_map),
        (nn.BatchNorm2d(4, 0.1, None, False, False), lambda x: F.batch_norm(x, None, None, training=True, eps=0.1)),
        (nn.Flatten(), lambda x: x.reshape(2, 4 * 6 * 8)),
        (nn.Flatten(2), lambda x: x.reshape(2, 4, 48)),
        (nn.Dropout(0.3, "paper").eval(), lambda x: x * 0.7),
    ],
    ids=lambda given: str(given) if isinstance(given, nn.Module) else "",
)
def test_layers_pass_their_settings_on(device, layer, function):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 6, 8)), device=device)
    np.testing.assert_allclose(layer(x).numpy(), function(x).numpy(), rtol=1e-14)
    assert list(layer.parameters()) == []


def test_conv2d_passes_its_settings_on(device):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 9, 9)), device=device)
    conv = nn.Conv2d(4, 6, (2, 3), (2, 1), ((1, 0), (2, 1)), (1, 2), 2, device=device, dtype="float64")
    assert conv.weight.shape == (6, 2, 2, 3)
    minigrad.init.normal_(conv.bias)
    expected = F.conv2d(x, conv.weight, conv.bias, (2, 1), ((1, 0), (2, 1)), (1, 2), 2)
    np.testing.assert_array_equal(conv(x).numpy(), expected.numpy())


def test_a_convolution_reads_its_weight_as_it_lies(device):
    """Channels last on the processor; on a card as its kernels read it, or each step would copy weight and gradient."""
    weight = nn.Conv2d(3, 4, 5, device=device).weight.data
    assert (weight.transpose(0, 2, 3, 1) if minigrad.device(device).on_host else weight).flags.c_contiguous


def test_cross_entropy_loss(device):
    x = Tensor(np.random.default_rng(0).standard_normal((4, 3)), device=device)
    for reduction in ("mean", "sum", "none"):
        loss = nn.CrossEntropyLoss(reduction)(x, [0, 2, 1, 1])
        np.testing.assert_array_equal(loss.numpy(), F.cross_entropy(x, [0, 2, 1, 1], reduction).numpy())


def test_gradients_of_a_whole_net(device):
    net = Net(device, "float64")
    x = image(device, "float64").requires_grad_()
    assert gradcheck(lambda *_: F.cross_entropy(net(x), [0, 2]), [x, *net.parameters()])


def test_training_step_by_step_against_pytorch(device):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    net = nn.Sequential(
        {
            "0": nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, device=device, dtype="float64"),
            "1": nn.ReLU(),
        },
        {"2": nn.MaxPool2d(3, 2), "3": nn.Flatten(), "4": nn.Linear(4, 3, device=device, dtype="float64")},
    )
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    ).double()  # fmt: skip
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in net.state_dict().items()})
    ours = optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    oracle = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    x, t = image(device, "float64", n=6), np.array([0, 1, 2, 0, 1, 2])
    for _ in range(5):
        loss, expected = (
            F.cross_entropy(net(x), t),
            torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x.numpy().copy())), torch.from_numpy(t)),
        )
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        for optimizer, value in ((ours, loss), (oracle, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[name].numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv2d: groups=2 must divide in_channels=3, out_channels=4"),
        (lambda: nn.Conv2d(0, 4, 3), "Conv2d: in_channels must be an integer >= 1, got 0"),
        (lambda: nn.Conv2d(3, 4, (3, 0)), "Conv2d: kernel_size must be an integer >= 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 2.0), "kernel_size must be an integer >= 1, got 2.0"),
        (
            lambda: nn.Conv2d(3, 4, (3, 3, 3)),
            r"Conv2d: kernel_size must be an int or \(vertical, horizontal\)",
        ),
        (lambda: nn.Linear(True, 4), "Linear: in_features must be an integer >= 1, got True"),
        (lambda: nn.LRN(n=0), "lrn: n must be an integer >= 1, got 0"),
        (lambda: nn.Dropout(2), "dropout: p, the probability of dropping, must be between 0 and 1, got 2"),
        (lambda: nn.Dropout(form="torch"), "form must be 'inverted' or 'paper'"),
        (lambda: nn.CrossEntropyLoss("max"), "reduction must be 'mean', 'sum' or 'none', got 'max'"),
    ],
)
def test_refused_settings(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_parameter_is_not_silently_replaced_by_a_result():
    layer = nn.Linear(3, 2)
    with pytest.raises(GraphError, match="Linear.weight is a Parameter.*no_grad"):
        layer.weight *= 2.0
    with minigrad.no_grad():
        layer.weight *= 2.0
    layer.weight = nn.Parameter(np.ones((2, 3), "f"))
    assert len(list(layer.parameters())) == 2
