"""Settings out of range or of a wrong kind: refused where they are given, by a layer before it is called."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, Tensor, init, nn, optim
from minigrad.base.arguments import integer, number, padding_of, pair


def weight():
    return Tensor(np.ones((2, 3), np.float32), requires_grad=True)


def sgd(**settings):
    return optim.SGD([weight()], **{"lr": 0.1, **settings})


X = Tensor(np.ones((1, 4, 6, 6), np.float32))
C4 = Tensor(np.ones(4, np.float32))
MAKERS = {  # each with settings that are in order
    "Conv2d": lambda **s: nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **s}),
    "ConvTranspose2d": lambda **s: nn.ConvTranspose2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **s}),
    "Linear": lambda **s: nn.Linear(**{"in_features": 4, "out_features": 6, **s}),
    "MaxPool2d": lambda **s: nn.MaxPool2d(**{"kernel_size": 2, **s}),
    "AvgPool2d": lambda **s: nn.AvgPool2d(**{"kernel_size": 2, **s}),
    "LRN": nn.LRN,
    "LRNWithinMap": nn.LRNWithinMap,
    "Dropout": nn.Dropout,
    "Flatten": nn.Flatten,
    "CrossEntropyLoss": nn.CrossEntropyLoss,
    "Parameter": lambda **s: nn.Parameter([1.0], **s),
    "train": lambda **s: nn.ReLU().train(**s),
    "standardize_outputs": lambda **s: nn.standardize_outputs(nn.Sequential(nn.Linear(6, 2)), X, **s),
    "SGD": sgd,
    "group": lambda **s: optim.SGD([{"params": [weight()], **s}], 0.1),
    "Adam": lambda **s: optim.Adam([weight()], **s),
    "StepLR": lambda **s: optim.StepLR(sgd(), **{"step_size": 2, **s}),
    "Warmup": lambda **s: optim.Warmup(sgd(), **s),
    "WarmupCosine": lambda **s: optim.WarmupCosine(sgd(), **{"warmup": 2, "total": 9, **s}),
    "ReduceOnPlateau": lambda **s: optim.ReduceOnPlateau(sgd(), **s),
    "ReduceOnPlateau.step": lambda **s: optim.ReduceOnPlateau(sgd()).step(**s),
    "normal_": lambda **s: init.normal_(weight().detach(), **s),
    "uniform_": lambda **s: init.uniform_(weight().detach(), **s),
    "constant_": lambda **s: init.constant_(weight().detach(), **s),
    "conv2d": lambda **s: F.conv2d(X, Tensor(np.ones((6, 4, 3, 3), "f")), **s),
    "conv_transpose2d": lambda **s: F.conv_transpose2d(X, Tensor(np.ones((4, 6, 3, 3), "f")), **s),
    "max_pool2d": lambda **s: F.max_pool2d(X, **{"kernel_size": 2, **s}),
    "avg_pool2d": lambda **s: F.avg_pool2d(X, **{"kernel_size": 2, **s}),
    "lrn": lambda **s: F.lrn(X, **s),
    "lrn_within_map": lambda **s: F.lrn_within_map(X, **s),
    "dropout": lambda **s: F.dropout(X, **s),
    "cross_entropy": lambda **s: F.cross_entropy(Tensor([[0.0, 1.0]]), [1], **s),
    "batch_norm": lambda **s: F.batch_norm(X, C4, C4, **s),
    "BatchNorm2d": lambda **s: nn.BatchNorm2d(**{"num_features": 4, **s}),
    "clip": lambda **s: F.clip(X, **{"min": 0.0, **s}),
    "sum": lambda **s: F.sum(X, **s),
    "mean": lambda **s: F.mean(X, **s),
    "max": lambda **s: F.max(X, **s),
    "softmax": lambda **s: F.softmax(X, **s),
    "flatten": lambda **s: F.flatten(X, **s),
    "pad": lambda **s: F.pad(X, ((1, 1),) * 4, **s),
}
NEVER = [object(), {}, {1, 2}, b"3", lambda: 1, np.array([3, 3]), np.array(0.5), 1j, np.complex64(1), Decimal("0.5")]
INTEGER = [*NEVER, None, "3", True, np.True_, 2.0, 0.5, math.nan, math.inf, 10**400, [1], Tensor([3, 3])]
SIDES = [*INTEGER, "same", -1, [], (1, 2, 3), (2.0, 2), (True, 2), ((1,), (1,)), ((1, 1), 1)]
NUMBER = [*NEVER, None, "0.1", True, np.True_, math.nan, math.inf, 10**400, [0.1], Tensor(0.1)]
FLAG = [*NEVER, None, "no", 0, 1, 0.0, [], Tensor(1)]
WORD = [*NEVER, "nonsense", 3, True, ["sum"]]
REFUSED = {  # who, and what is refused of which settings
    "Conv2d": {
        "in_channels out_channels groups": [*INTEGER, 0, -1],
        "kernel_size stride dilation": [*SIDES, 0, None],
        "padding": [*SIDES, 2**31],
        "bias": FLAG,
    },
    "ConvTranspose2d": {
        "in_channels out_channels groups": [*INTEGER, 0, -1],
        "kernel_size stride dilation": [*SIDES, 0, None],
        "padding": [*SIDES, 2**31],
        "output_padding": [*SIDES, 1],
        "bias": FLAG,
    },
    "Linear": {"in_features out_features": [*INTEGER, 0, -1], "bias": FLAG},
    "MaxPool2d": {"kernel_size": [*SIDES, 0], "stride": [v for v in SIDES if v is not None], "padding": SIDES},
    "AvgPool2d": {"kernel_size": [*SIDES, 0], "padding": SIDES, "ceil_mode count_include_pad": FLAG},
    "LRN": {"n groups": [*INTEGER, 0, -1], "k": [*NUMBER, 0, -1], "alpha": [*NUMBER, -1], "beta": NUMBER},
    "LRNWithinMap": {"n": [*INTEGER, 0, 2], "k": [*NUMBER, 0], "alpha": [*NUMBER, -1], "beta": NUMBER},
    "Dropout": {"p": [*NUMBER, -0.1, 1.5], "form": WORD},
    "Flatten": {"start_dim": INTEGER},
    "CrossEntropyLoss": {"reduction": WORD},
    "Parameter": {"requires_grad": FLAG},
    "train": {"mode": FLAG},
    "standardize_outputs": {"std": [v for v in [*NUMBER, 0, -1, {nn.ReLU(): 0.1}] if not isinstance(v, dict) or v]},
    "SGD": {
        "lr weight_decay": [*NUMBER, -1],
        "momentum": [*NUMBER, -0.1, 1],
        "update_rule": WORD,
    },
    "group": {"lr weight_decay": [*NUMBER, -1], "params": [None, 3, 0.1, True, np.array(3), weight()]},
    "Adam": {"lr weight_decay eps": [*NUMBER, -1], "betas": [*NUMBER, 0.9, (0.9,), (0.9, 1.0), ("0.9", 0.9), [1, 1j]]},
    "StepLR": {"step_size": [*INTEGER, 0], "gamma": [*NUMBER, 0]},
    "Warmup": {"warmup": [*INTEGER, -1]},
    "WarmupCosine": {"warmup": [*INTEGER, -1], "total": [*INTEGER, 2], "final": [*NUMBER, 1.5]},
    "ReduceOnPlateau": {"factor": [*NUMBER, 0, 1], "patience": [*INTEGER, -1], "threshold min_lr": [*NUMBER, -1]},
    "ReduceOnPlateau.step": {"measure": [None, "0.1", True, [0.1], 1j, object(), 10**400, np.array([3, 3])]},
    "normal_": {"mean": NUMBER, "std": [*NUMBER, -1]},
    "uniform_": {"low high": NUMBER},
    "constant_": {"value": NUMBER},
    "conv2d": {"stride dilation": [*SIDES, 0], "padding": SIDES, "groups": [*INTEGER, 0]},
    "conv_transpose2d": {
        "stride dilation": [*SIDES, 0],
        "padding": SIDES,
        "groups": [*INTEGER, 0],
        "output_padding": [*SIDES, 1],
    },
    "max_pool2d": {"kernel_size dilation": [*SIDES, 0], "padding": SIDES, "ceil_mode": FLAG},
    "avg_pool2d": {"kernel_size": [*SIDES, 0], "padding": SIDES, "ceil_mode count_include_pad": FLAG},
    "lrn": {"n groups": [*INTEGER, 0, -1], "k": [*NUMBER, 0], "alpha beta": NUMBER},
    "lrn_within_map": {"n": [*INTEGER, 0], "k": [*NUMBER, 0], "alpha beta": NUMBER},
    "dropout": {"p": [*NUMBER, -0.1, 1.5], "training": FLAG, "form": WORD},
    "cross_entropy": {"reduction": WORD},
    "batch_norm": {"training": FLAG, "momentum": [*NUMBER, -0.1, 1.1], "eps": [*NUMBER, -1]},
    "BatchNorm2d": {
        "num_features": [*INTEGER, 0],
        "eps": [*NUMBER, -1],
        "momentum": [v for v in [*NUMBER, -0.1, 1.1] if v is not None],
        "affine track_running_stats": FLAG,
    },
    "clip": {"max": [v for v in NUMBER if v is not None and v is not math.inf]},
    "sum": {"keepdims": FLAG, "axis": ["0", 1.0, True, 1j]},
    "mean": {"keepdims": FLAG},
    "max": {"keepdims": FLAG},
    "softmax": {"axis": INTEGER},
    "flatten": {"start_dim": INTEGER},
    "pad": {"value": [*NEVER, None, "0", True]},
}
CASES = [
    (who, name, values)
    for who, settings in REFUSED.items()
    for names, values in settings.items()
    for name in names.split()
]


@pytest.mark.parametrize("who, name, values", CASES, ids=[f"{who} {name}" for who, name, _ in CASES])
def test_refused_where_it_is_given(who, name, values):
    for value in values:
        with pytest.raises(ArgumentError, match=rf"^\w+(\.\w+)?: .*{name if who != 'group' else ''}"):
            print(f"{who}({name}={value!r}) was accepted", MAKERS[who](**{name: value}))


@pytest.mark.parametrize("who", MAKERS)
def test_accepted_without_them(who):
    """Else the test above could see a refusal of something else."""
    if who not in ("Warmup", "ReduceOnPlateau.step", "constant_", "standardize_outputs"):  # what they must be told
        MAKERS[who]()


def test_dtypes_and_devices_that_are_none():
    for make in (nn.Linear, lambda *sizes, **s: nn.Conv2d(*sizes, 3, **s), lambda *_, **s: nn.Parameter([1.0], **s)):
        for dtype in ("int", np.int32, bool, "float16", "same", complex, 3, (1, 2, 3), object(), [1]):
            with pytest.raises(DTypeError):
                make(2, 3, dtype=dtype)
        for device in ("gpu", 0, object()):
            with pytest.raises(minigrad.DeviceError):
                make(2, 3, device=device)


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint8, np.array], ids=str)
def test_integers_of_numpy_are_integers(kind):
    conv = nn.Conv2d(kind(4), kind(120), (kind(3), kind(2)), kind(2), kind(1), kind(1), kind(4))
    minigrad.manual_seed(0)
    conv = nn.Conv2d(kind(4), kind(120), (kind(3), kind(2)), kind(2), kind(1), kind(1), kind(4))
    minigrad.manual_seed(0)
    same = nn.Conv2d(4, 120, (3, 2), 2, 1, 1, 4)
    np.testing.assert_array_equal(conv(X).numpy(), same(X).numpy())
    assert str(conv) == str(same) and nn.Linear(kind(100), kind(100)).weight.shape == (100, 100)
    pools = nn.MaxPool2d(kind(3), kind(2), kind(1)), nn.MaxPool2d(3, 2, 1)
    np.testing.assert_array_equal(pools[0](X).numpy(), pools[1](X).numpy())
    assert nn.Flatten(kind(2))(X).shape == (1, 4, 36) and nn.LRN(kind(3), groups=kind(2))(X).shape == X.shape
    json.dumps(optim.StepLR(sgd(), kind(2)).state_dict())


def test_numbers_of_numpy_do_not_keep_an_optimizer_from_being_saved(tmp_path):
    small = np.float32(0.5)
    for o in (
        sgd(lr=small, momentum=small, weight_decay=np.int64(0)),
        optim.Adam([weight()], small, (small, small), small),
    ):
        minigrad.checkpoint.save(tmp_path / "o", {}, {"optimizer": o.state_dict()["settings"]})
        o.load_state_dict({"arrays": {}, "settings": minigrad.checkpoint.load(tmp_path / "o")[1]["optimizer"]})
        assert o.param_groups[0]["lr"] == 0.5


def test_padding_same_is_answered_with_what_to_write():
    with pytest.raises(ArgumentError, match=r"Conv2d: padding .* got 'same': .* dilation \* \(kernel_size - 1\) // 2"):
        nn.Conv2d(4, 4, 5, padding="same", dilation=2)
    assert nn.Conv2d(4, 4, 5, padding=2 * (5 - 1) // 2, dilation=2)(X).shape == X.shape


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_stride_none_is_the_window(kind):
    assert kind((2, 3), None)(X).shape == (1, 4, 3, 2)


def test_what_is_no_optimizer_and_what_holds_no_parameters():
    for make in (optim.Warmup, optim.ReduceOnPlateau, lambda o, _: optim.WarmupCosine(o, 1, 2), optim.StepLR):
        for what in (None, "sgd", optim.SGD, [weight()], nn.Linear(2, 2)):
            with pytest.raises(ArgumentError, match="optimizer must be an Optimizer such as SGD, got"):
                make(what, 1 if make is not optim.ReduceOnPlateau else 0.5)
    for params in (None, 3, True, np.array(3), object(), nn.Linear(2, 2)):
        with pytest.raises(ArgumentError, match="SGD: params must be a list of tensors or of groups, got"):
            optim.SGD(params, 0.1)
    for params in ("ab", {"weight": weight()}):  # a list of their keys is none of tensors
        with pytest.raises(ArgumentError, match="SGD: params must be a list of tensors or of groups, got"):
            optim.SGD(params, 0.1)


def test_what_is_no_tensor_is_named():
    for op in (F.relu, F.tanh, F.exp, F.softmax, F.lrn, F.dropout, lambda x: F.conv2d(x, X), lambda w: F.conv2d(X, w)):
        for x in (None, 1.0, [1.0], np.ones(3)):
            with pytest.raises(DTypeError, match="must be a Tensor, got"):
                op(x)


def test_standardize_outputs_refuses_what_would_do_nothing():
    net, other = nn.Sequential(nn.Linear(6, 2)), nn.Linear(6, 2)
    with pytest.raises(ArgumentError, match="std names what is no Conv2d or Linear of the model"):
        nn.standardize_outputs(net, X, {other: 0.1})
    with pytest.raises(ArgumentError, match="only names what is no Conv2d or Linear of the model"):
        nn.standardize_outputs(net, X, only=[other])
    with pytest.raises(ArgumentError, match="model must be a Module, got Tensor"):
        nn.standardize_outputs(X, X)


def test_checks():
    assert integer("op", "n", np.int8(-3)) == -3 and type(integer("op", "n", np.int8(3), 1)) is int
    assert pair("op", "n", [1, np.int64(2)], 1) == (1, 2)
    assert padding_of("op", 1) == ((1, 1), (1, 1)) and padding_of("op", [1, 2]) == ((1, 1), (2, 2))
    assert padding_of("op", ((1, 2), (3, 4))) == ((1, 2), (3, 4))
    with pytest.raises(ArgumentError, match="op: n must be an integer >= 1, and at most 9, got 10"):
        integer("op", "n", 10, 1, 9)
    for large in (10**10000, [10**10000]):
        with pytest.raises(ArgumentError, match="op: n must be an integer.*, got (int|list) of more digits than"):
            integer("op", "n", large)
    with pytest.raises(ArgumentError, match=r"got \[0, 0, .*\.\.\. \(list\)$"):
        integer("op", "n", [0] * 10**5)


def test_the_bounds_of_numbers():
    assert number("f", "x", np.float32(0), minimum=0) == 0.0 and number("f", "x", 1e-300, above=0) == 1e-300
    for bounds, rule in (({"minimum": 0}, " >= 0"), ({"above": 0}, " > 0"), ({}, "")):
        for value in ("0", True, np.inf, *([-1] if bounds else []), *([0] if "above" in bounds else [])):
            with pytest.raises(ArgumentError, match=f"^f: x must be a finite number{rule}, got "):
                number("f", "x", value, **bounds)
