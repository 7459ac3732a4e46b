"""What PyTorch calls otherwise: one table, for errors and for docs/pytorch.md.

There are no aliases: a thing has one name here.  Who writes another one gets an AttributeError (or a TypeError, for a
keyword) that says what it is called here.  A row is what one writes there and what one writes here, both as code:
tests/test_spellings.py runs the two, compares what they give, and compares the table with the documentation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any, NoReturn, TypeVar

Called = TypeVar("Called", bound=Callable[..., Any])

# Owner -> name that it lacks -> (there, here), of PyTorch's and of ours.  `x` is a tensor (2, 3), `y` another, `row` is
# (1, 3), `net` a Linear(3, 4), `F` the functional of each.
SPELLINGS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "Tensor": {
        "view": [("x.view(3, 2)", "x.reshape(3, 2)")],
        "ravel": [("x.ravel()", "x.flatten()")],
        "permute": [("x.permute(1, 0)", "x.transpose(1, 0)")],
        "t": [("x.t()", "x.T")],
        "mT": [("x.mT", "x.transpose(1, 0)")],
        "unsqueeze": [("x.unsqueeze(0)", "x[None]"), ("x.unsqueeze(-1)", "x[..., None]")],
        "squeeze": [("row.squeeze(0)", "row[0]")],
        "expand": [("row.expand(2, 3)", "minigrad.concat([row] * 2)")],
        "repeat": [("row.repeat(2, 1)", "minigrad.concat([row] * 2)")],
        "contiguous": [("x.contiguous()", "x")],
        "clone": [("x.clone()", "x + 0"), ("x.detach().clone()", "minigrad.Tensor(x)")],
        "copy": [("x.detach().clone()", "minigrad.Tensor(x)")],
        "dim": [("x.dim()", "x.ndim")],
        "numel": [("x.numel()", "x.size")],
        "nelement": [("x.nelement()", "x.size")],
        "tolist": [("x.tolist()", "x.numpy().tolist()")],
        "float": [("x.float()", "x.astype('float32')")],
        "double": [("x.double()", "x.astype('float64')")],
        "long": [("x.long()", "x.astype('int64')")],
        "int": [("x.int()", "x.astype('int32')")],
        "byte": [("x.byte()", "x.astype('uint8')")],
        "bool": [("x.bool()", "x.astype('bool')")],
        "type": [("x.type(torch.float64)", "x.astype('float64')")],
        "cpu": [("x.cpu()", "x.to('cpu:0')")],
        "cuda": [("x.cuda()", "x.to('cuda:0')")],
        "is_cuda": [("x.is_cuda", "x.device.kind == 'cuda'")],
        "grad_fn": [("x.grad_fn", "x.node")],
        "pow": [("x.pow(2)", "x ** 2")],
        "square": [("x.square()", "x ** 2")],
        "rsqrt": [("y.rsqrt()", "y ** -0.5")],
        "reciprocal": [("x.reciprocal()", "1 / x")],
        "neg": [("x.neg()", "-x")],
        "mul": [("x.mul(y)", "x * y")],
        "sub": [("x.sub(y)", "x - y")],
        "div": [("x.div(y)", "x / y")],
        "mm": [("x.mm(y.T)", "x @ y.T")],
        "bmm": [("x[None].bmm(y.T[None])", "x[None] @ y.T[None]")],
        "mv": [("x.mv(y[0])", "x @ y[0]")],
        "dot": [("x[0].dot(y[0])", "x[0] @ y[0]")],
        "eq": [("x.eq(y)", "x == y")],
        "ne": [("x.ne(y)", "x != y")],
        "lt": [("x.lt(y)", "x < y")],
        "le": [("x.le(y)", "x <= y")],
        "gt": [("x.gt(y)", "x > y")],
        "ge": [("x.ge(y)", "x >= y")],
        "norm": [("x.norm()", "(x ** 2).sum().sqrt()")],
        "std": [("x.std(dim=1)", "F.std(x, axis=1)")],
        "var": [("x.var(dim=1)", "F.var(x, axis=1)")],
        "amax": [("x.amax(dim=1)", "x.max(axis=1)")],
        "clamp": [("x.clamp(-1, 1)", "F.clip(x, -1, 1)"), ("x.clamp(min=0)", "F.clip(x, 0)")],
        "masked_fill": [("x.masked_fill(x < 0, 7)", "F.where(x < 0, 7, x)")],
        "chunk": [("x.chunk(3, dim=1)", "minigrad.split(x, 3, axis=1)")],
        "add_": [("x.add_(y)", "x += y")],
        "sub_": [("x.sub_(y)", "x -= y")],
        "mul_": [("x.mul_(y)", "x *= y")],
        "div_": [("x.div_(y)", "x /= y")],
        "fill_": [("x.fill_(7)", "x[...] = 7")],
        "zero_": [("x.zero_()", "x[...] = 0")],
        "uniform_": [("x.uniform_(-1, 1)", "minigrad.init.uniform_(x, -1, 1)")],
        "normal_": [("x.normal_(0, 0.1)", "minigrad.init.normal_(x, 0, 0.1)")],
    },
    "Device": {"type": [("x.device.type", "x.device.kind")]},
    "nn.Module": {
        "float": [("net.float()", "net.to('float32')")],
        "double": [("net.double()", "net.to('float64')")],
        "cpu": [("net.cpu()", "net.to('cpu:0')")],
        "cuda": [("net.cuda()", "net.to('cuda:0')")],
        "add_module": [("net.add_module('last', nn.ReLU())", "net.last = nn.ReLU()")],
        "register_module": [("net.register_module('last', nn.ReLU())", "net.last = nn.ReLU()")],
        "register_parameter": [
            ("net.register_parameter('scale', nn.Parameter(x))", "net.scale = nn.Parameter(x)")
        ],
        "register_buffer": [("net.register_buffer('seen', x)", "net.seen = nn.Buffer(x)")],
        "requires_grad_": [("net.requires_grad_(False)", "for p in net.parameters(): p.requires_grad_(False)")],
        "apply": [("net.apply(f)", "for module in net.modules(): f(module)")],
        "get_parameter": [("net.get_parameter('weight')", "dict(net.named_parameters())['weight']")],
        "extra_repr": [("net.extra_repr()", "net.settings()")],
    },
    "minigrad": {
        "tensor": [("torch.tensor([1.0, 2.0])", "minigrad.Tensor([1.0, 2.0])")],
        "as_tensor": [("torch.as_tensor([1.0, 2.0])", "minigrad.Tensor([1.0, 2.0])")],
        "from_dlpack": [("torch.from_dlpack(array)", "minigrad.Tensor(array)")],
        "cat": [("torch.cat([x, y], dim=1)", "minigrad.concat([x, y], axis=1)")],
        "chunk": [("torch.chunk(x, 3, dim=1)", "minigrad.split(x, 3, axis=1)")],
        "permute": [("torch.permute(x, (1, 0))", "F.transpose(x, (1, 0))")],
        "mm": [("torch.mm(x, y.T)", "x @ y.T")],
        "clamp": [("torch.clamp(x, -1, 1)", "F.clip(x, -1, 1)")],
        "pow": [("torch.pow(x, 2)", "x ** 2")],
        "float32": [("torch.zeros(2, dtype=torch.float32)", "minigrad.zeros(2, dtype='float32')")],
        "float64": [("torch.zeros(2, dtype=torch.float64)", "minigrad.zeros(2, dtype='float64')")],
        "int64": [("torch.zeros(2, dtype=torch.int64)", "minigrad.zeros(2, dtype='int64')")],
        "long": [("torch.zeros(2, dtype=torch.long)", "minigrad.zeros(2, dtype='int64')")],
        "inference_mode": [("with torch.inference_mode(): z = x * y", "with minigrad.no_grad(): z = x * y")],
        "save": [
            ("torch.save(net.state_dict(), 'net.pt')", "minigrad.checkpoint.save('net.safetensors', net.state_dict())")
        ],
        "load": [
            (
                "net.load_state_dict(torch.load('net.pt'))",
                "net.load_state_dict(minigrad.checkpoint.load('net.safetensors')[0])",
            )
        ],
        "data": [("from torch.utils.data import Dataset", "from minigrad.data import Dataset")],
        "utils": [("from torch.utils.data import DataLoader", "from minigrad.data import Loader")],
        "cuda": [("torch.zeros(2, device='cuda')", "minigrad.zeros(2, device='cuda')")],
        "set_default_device": [("torch.set_default_device('cpu')", "minigrad.set_default_devices('cpu')")],
    },
    "minigrad.functional": {
        "cat": [("torch.cat([x, y], dim=1)", "F.concat([x, y], axis=1)")],
        "mul": [("torch.mul(x, y)", "F.multiply(x, y)")],
        "div": [("torch.div(x, y)", "F.divide(x, y)")],
        "sub": [("torch.sub(x, y)", "F.subtract(x, y)")],
        "nll_loss": [
            (
                "F.nll_loss(F.log_softmax(x, dim=1), labels)",
                "F.cross_entropy(x, labels)",
            )
        ],
        "local_response_norm": [
            (
                "F.local_response_norm(image, 5, alpha=5e-4, beta=0.75, k=2.0)",
                "F.lrn(image, 5, alpha=5e-4 / 5, beta=0.75, k=2.0)",
            )
        ],
    },
    "minigrad.nn": {
        "functional": [("import torch.nn.functional as F", "import minigrad.functional as F")],
        "utils": [
            ("nn.utils.clip_grad_norm_(net.parameters(), 1.0)", "optim.clip_grad_norm_(net.parameters(), 1.0)")
        ],
        "ModuleList": [("layers = nn.ModuleList([net, net])", "layers = [net, net]")],
        "ModuleDict": [("layers = nn.ModuleDict({'a': net})", "layers = {'a': net}")],
        "ParameterList": [("weights = nn.ParameterList([weight])", "weights = [weight]")],
        "Identity": [("nn.Identity()(x)", "nn.Sequential()(x)")],
        "Softmax": [("nn.Softmax(dim=1)(x)", "F.softmax(x, axis=1)")],
        "LogSoftmax": [("nn.LogSoftmax(dim=1)(x)", "F.log_softmax(x, axis=1)")],
        "LocalResponseNorm": [
            (
                "nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(image)",
                "nn.LRN(5, alpha=5e-4 / 5, beta=0.75, k=2.0)(image)",
            )
        ],
        "MSELoss": [("nn.MSELoss()(x, y)", "F.mse_loss(x, y)")],
        "L1Loss": [("nn.L1Loss()(x, y)", "F.l1_loss(x, y)")],
        "BCEWithLogitsLoss": [
            ("nn.BCEWithLogitsLoss()(x, y.sigmoid())", "F.binary_cross_entropy_with_logits(x, y.sigmoid())")
        ],
    },
    "minigrad.nn.init": {
        "kaiming_normal_": [
            ("init.kaiming_normal_(weight, nonlinearity='relu')", "minigrad.init.he_normal_(weight)"),
        ],
        "xavier_normal_": [
            ("init.xavier_normal_(weight)", "minigrad.init.normal_(weight, std=(2 / sum(weight.shape)) ** 0.5)"),
        ],
        "ones_": [("init.ones_(weight)", "minigrad.init.constant_(weight, 1)")],
    },
    "minigrad.data": {
        "DataLoader": [("DataLoader(dataset, batch_size=2, num_workers=0)", "Loader(dataset, 2, workers=0)")],
        "TensorDataset": [("TensorDataset(x, y)[0]", "ArrayDataset(x, y)[0]")],
    },
    "minigrad.optim": {
        "lr_scheduler": [
            ("optim.lr_scheduler.StepLR(optimizer, 30)", "optim.StepLR(optimizer, 30)"),
            ("optim.lr_scheduler.CosineAnnealingLR(optimizer, 90)", "optim.WarmupCosine(optimizer, 0, 90)"),
            ("optim.lr_scheduler.ReduceLROnPlateau(optimizer)", "optim.ReduceOnPlateau(optimizer, patience=10)"),
        ],
    },
}  # fmt: skip

# What both have, for two things.  It is not always an error to take the one for the other.
OTHER_MEANINGS = [
    ("x.transpose(0, 1)", "x.transpose(1, 0)"),
    ("x.max(dim=1).values", "x.max(axis=1)"),
    ("x.data.numpy()", "x.data"),
    ("torch.split(x, 1, dim=1)", "minigrad.split(x, 3, axis=1)"),
    ("F.pad(image, (1, 2, 3, 4))", "F.pad(image, ((0, 0), (0, 0), (3, 4), (1, 2)))"),
]

# Keywords, as the functions that have the second know them.
KEYWORDS = {"dim": "axis", "keepdim": "keepdims", "num_workers": "workers", "collate_fn": "collate"}


def not_found(owner: str, what: str, name: str, elsewhere: Mapping[str, Collection[str]] | None = None) -> str:
    """What an AttributeError says: `what` ("'Tensor' object") has no attribute `name`, and what it is called here.

    owner: whose table to look into.  elsewhere: modules by name, and what they have: that is found there.
    """
    message = f"{what} has no attribute {name!r}"
    if name in SPELLINGS[owner]:
        return f"{message}: {_told(SPELLINGS[owner][name])}"
    for module, names in (elsewhere or {}).items():
        if name in names:
            return f"{message}: it is {module}.{name}"
    return message


def of_module(module: str, *others: ModuleType) -> Callable[[str], NoReturn]:
    """A module's `__getattr__`: its AttributeErrors know PyTorch's names, and what the other modules have."""

    def __getattr__(name: str) -> NoReturn:  # noqa: N807
        elsewhere = {other.__name__: getattr(other, "__all__", ()) for other in others}
        raise AttributeError(not_found(module, f"module {module!r}", name, elsewhere))

    return __getattr__


def spelled(function: Called) -> Called:
    """Decorator of functions: the TypeError for PyTorch's `dim` says `axis`, where the function has that."""
    known = inspect.signature(function).parameters
    if not known.keys() & KEYWORDS.values():
        return function

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known and KEYWORDS.get(name) in known:
                raise TypeError(
                    f"{function.__name__}() got an unexpected keyword argument {name!r}: it is {KEYWORDS[name]}= here"
                )
        return function(*args, **kwargs)

    return called  # type: ignore[return-value]


class NotAFunction(ModuleType):
    """The class of the module minigrad.tensor, which PyTorch has a function for."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        package, _, name = self.__name__.rpartition(".")
        raise TypeError(f"{self.__name__} is a module: {_told(SPELLINGS[package][name])}")


class Size(int):
    """A tensor's number of elements: an int, for which PyTorch has the name numel(), and another meaning for size()."""

    __slots__ = ()

    def __call__(self, *dim: Any) -> NoReturn:
        here = f"x.shape[{dim[0]}]" if len(dim) == 1 else "x.shape"
        raise TypeError(
            f"x.size({', '.join(map(str, dim))}) (PyTorch) is {here} here; x.size is the number of elements"
        )


def _told(rows: list[tuple[str, str]]) -> str:
    return "; ".join(f"{there} (PyTorch) is {here} here" for there, here in rows)
