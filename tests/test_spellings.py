"""The table of PyTorch's spellings: both sides run and give the same, errors know it, and the documentation has it."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.data
import minigrad.functional as F
from minigrad import DeviceError, DTypeError, Tensor, nn, optim
from minigrad.base.spellings import KEYWORDS, OTHER_MEANINGS, SPELLINGS

ROOT = Path(__file__).parent.parent
ROWS = [(owner, name, *row) for owner, names in SPELLINGS.items() for name, rows in names.items() for row in rows]
OTHERS = [("the same name", "", *row) for row in OTHER_MEANINGS]

X = np.random.default_rng(0).standard_normal((2, 3)).astype("f")
WEIGHT = np.random.default_rng(1).standard_normal((4, 3)).astype("f")
ARRAYS = {
    "x": X, "y": X**2 + 1, "row": X[:1] - 2, "image": np.arange(360, dtype="f").reshape(1, 10, 6, 6) / 90,
    "labels": np.array([2, 0]),
}  # fmt: skip


def ours():
    """What the names on our side stand for."""
    net, seen = nn.Linear(3, 4), []
    net.load_state_dict({"weight": WEIGHT, "bias": WEIGHT[:, 0]})
    net.weight.grad, net.bias.grad = Tensor(WEIGHT), Tensor(WEIGHT[:, 1])
    minigrad.checkpoint.save("net.safetensors", {"weight": -WEIGHT, "bias": WEIGHT[:, 1]})
    names = {name: Tensor(array) for name, array in ARRAYS.items()}
    names |= {"minigrad": minigrad, "nn": nn, "optim": optim, "F": F, **vars(minigrad.data)}
    names |= {"net": net, "weight": nn.Parameter(WEIGHT), "optimizer": optim.SGD(net.parameters(), 0.5)}
    return {**names, "dataset": minigrad.data.ArrayDataset(X, X), "array": X, "f": seen.append, "seen": seen}


def theirs(torch):
    """And on PyTorch's."""
    net, seen = torch.nn.Linear(3, 4), []
    net.load_state_dict({"weight": torch.tensor(WEIGHT), "bias": torch.tensor(WEIGHT[:, 0])})
    net.weight.grad, net.bias.grad = torch.tensor(WEIGHT), torch.tensor(WEIGHT[:, 1])
    torch.save({"weight": torch.tensor(-WEIGHT), "bias": torch.tensor(WEIGHT[:, 1])}, "net.pt")
    names = {name: torch.tensor(array) for name, array in ARRAYS.items()}
    names |= {"torch": torch, "nn": torch.nn, "optim": torch.optim, "F": torch.nn.functional, "init": torch.nn.init}
    names |= {"net": net, "weight": torch.nn.Parameter(torch.tensor(WEIGHT)), **vars(torch.utils.data)}
    names |= {
        "optimizer": torch.optim.SGD(net.parameters(), 0.5),
        "dataset": torch.utils.data.TensorDataset(names["x"]),
    }
    return {**names, "array": X, "f": seen.append, "seen": seen}


def outcome(code, names, expression):
    """What a row's code gives, or, of a statement, what it makes of everything that it may change, as plain values."""
    if expression:
        return plain(eval(compile(code, "<row>", "eval"), names), names)
    exec(compile(code, "<row>", "exec"), names)
    net, made = names["net"], [names.get(name) for name in ("z", "layers", "weights", "seen")]
    of_net = [sorted(net.state_dict().items()), [name for name, _ in net.named_modules()]]
    return plain([names["x"], *made, *of_net, [(p.requires_grad, p.grad) for p in net.parameters()]], names)


def is_expression(code):
    try:
        return bool(compile(code, "<row>", "eval"))
    except SyntaxError:
        return False


def plain(value, names):
    kind = type(value).__name__
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tolist()
    if hasattr(value, "state_dict") and kind == "Linear":
        return plain(sorted(value.state_dict().items()), names)
    if isinstance(value, dict) or kind == "ModuleDict":
        return {name: plain(part, names) for name, part in value.items()}
    if isinstance(value, (list, tuple)) or kind in ("ModuleList", "ParameterList"):
        return [plain(part, names) for part in value]
    if hasattr(value, "optimizer"):
        return rates(value, names["optimizer"])
    return [plain(batch, names) for batch in value] if kind in ("Loader", "DataLoader") else value


def rates(schedule, optimizer):
    """The learning rates of 60 steps."""
    seen = []
    for _ in range(60):
        optimizer.step()
        schedule.step(*(1.0,) * ("Plateau" in type(schedule).__name__))
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def same(a, b):
    """Equal, of one type; numbers to 1e-5."""
    assert type(a) is type(b) or (isinstance(a, int) and type(b) is int), (a, b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b), (a, b)
        for pair in zip(a, b):
            same(*pair)
    else:
        assert a == (pytest.approx(b, rel=1e-5) if isinstance(b, float) else b)


# Rows whose outcomes are alike in part: random numbers have their type and shape, texts and batches are of one kind.
ALIKE = {
    **dict.fromkeys(("uniform_", "normal_", "kaiming_normal_", "xavier_normal_"), lambda value: value[:2]),
    "extra_repr": type, "DataLoader": len,
}  # fmt: skip


@pytest.mark.parametrize("owner, name, there, here", [*ROWS, *OTHERS], ids=[row[2] for row in [*ROWS, *OTHERS]])
def test_both_sides_of_a_row_give_the_same(owner, name, there, here, tmp_path, monkeypatch):
    if "'cuda'" in there or "cuda()" in there:
        compile(here, "<row>", "exec")
        pytest.skip("needs a card")
    monkeypatch.chdir(tmp_path)
    alike = ALIKE.get(name, lambda value: value)
    expression = is_expression(here) and name not in ("load", "utils")  # whose results say other things
    try:
        found = alike(outcome(here, ours(), expression))
    finally:
        minigrad.set_default_devices()
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    same(found, alike(outcome(there, theirs(torch), expression)))


def owner_of(name):
    made = {"Tensor": Tensor(X), "Device": minigrad.device("cpu:0"), "nn.Module": nn.Linear(2, 3)}
    return made[name] if name in made else eval(name)


@pytest.mark.parametrize("owner, name", sorted({row[:2] for row in ROWS}))
def test_who_writes_another_name_is_told_ours(owner, name):
    if name in ("data", "tensor"):
        return  # modules: see below
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': .* here$") as caught:
        getattr(owner_of(owner), name)
    for there, here in SPELLINGS[owner][name]:
        assert f"{there} (PyTorch) is {here} here" in str(caught.value)
    assert not hasattr(owner_of(owner), name)


@pytest.mark.parametrize(
    "of, name, message",
    [
        ("minigrad", "relu", "module 'minigrad' has no attribute 'relu': it is minigrad.functional.relu"),
        ("minigrad", "Linear", "module 'minigrad' has no attribute 'Linear': it is minigrad.nn.Linear"),
        ("minigrad", "SGD", "module 'minigrad' has no attribute 'SGD': it is minigrad.optim.SGD"),
        ("nn", "softmax", "module 'minigrad.nn' has no attribute 'softmax': it is minigrad.functional.softmax"),
        ("Tensor(X)", "dropout", "'Tensor' object has no attribute 'dropout': it is minigrad.functional.dropout"),
        ("nn.Parameter(X)", "nothing", "'Parameter' object has no attribute 'nothing'"),
        ('minigrad.device("cpu:0")', "nothing", "'CPU' object has no attribute 'nothing'"),
        ("nn.ReLU()", "nothing", "'ReLU' object has no attribute 'nothing'"),
        ("minigrad", "nothing", "module 'minigrad' has no attribute 'nothing'"),
    ],
)
def test_what_stands_elsewhere_and_what_there_is_not(of, name, message):
    with pytest.raises(AttributeError) as caught:
        getattr(eval(of), name)
    assert str(caught.value) == message


def test_keywords():
    x = Tensor(X)
    for call in (
        x.sum,
        x.mean,
        x.max,
        x.argmax,
        F.concat,
        F.stack,
        F.var,
        F.std,
        F.argmin,
        lambda **k: F.sum(x, **k),
        lambda **k: F.softmax(x, **k),
        F.split,
    ):
        with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'dim': it is axis= here"):
            call(dim=1)
    with pytest.raises(TypeError, match=r"mean\(\) got an unexpected keyword argument 'keepdim': it is keepdims= here"):
        x.mean(axis=1, keepdim=True)
    with pytest.raises(TypeError, match="'num_workers': it is workers= here"):
        minigrad.data.Loader(minigrad.data.ArrayDataset(X), 2, num_workers=0)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'exis'$"):
        x.sum(exis=1)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'dim'$"):  # relu has no axis
        F.relu(x, dim=1)
    assert x.sum(axis=1, keepdims=True).shape == (2, 1) and x.sum.__name__ == "sum"


def test_element_types_in_the_place_of_devices():
    x = Tensor(X)
    for wrong in ("float64", np.float64, np.dtype("float64")):
        with pytest.raises(DeviceError, match=r"device: expected a name .*: element types are for \.astype\(\)"):
            x.to(wrong)
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    with pytest.raises(DeviceError, match=r"got torch.float64: element types are for \.astype\(\)"):
        x.to(torch.float64)
    with pytest.raises(
        DTypeError, match="parameters are float32 or float64, got torch.float64: give it as text, 'float32'"
    ):
        nn.Linear(2, 3).to(torch.float64)
    with pytest.raises(DTypeError, match="must name an element type, got torch.float64: give it as text, 'float32'"):
        Tensor(X, dtype=torch.float64)


def test_size_is_a_number_that_knows_what_pytorch_means_by_calling_it():
    x = Tensor(X)
    assert x.size == 6 and isinstance(x.size, int) and f"{x.size:,}" == "6" and repr(x.size) == "6"
    with pytest.raises(TypeError, match=r"^x.size\(\) \(PyTorch\) is x.shape here; x.size is the number of elements$"):
        x.size()
    with pytest.raises(TypeError, match=r"^x.size\(-1\) \(PyTorch\) is x.shape\[-1\] here"):
        x.size(-1)


def test_modules_that_are_found_or_not():
    with pytest.raises(TypeError, match=r"^minigrad.tensor is a module: torch.tensor.* is minigrad.Tensor\(.* here$"):
        minigrad.tensor([1.0, 2.0], dtype="float32")
    assert minigrad.tensor.Tensor is Tensor
    code = (
        "import minigrad\ntry: minigrad.data\nexcept AttributeError as e: print(e)\nimport minigrad.data as d; d.Loader"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.endswith(": from torch.utils.data import Dataset (PyTorch) is from minigrad.data import Dataset here\n")


def test_a_property_that_fails_tells_its_own_error():
    class Net(nn.Module):
        @property
        def depth(self):
            return self.missing_part

    with pytest.raises(AttributeError, match="has no attribute 'missing_part'"):
        _ = Net().depth
    with pytest.raises(AttributeError, match="data"):
        _ = Tensor.__new__(Tensor).shape


def test_copies_and_pickles_go_on_as_before():
    for thing in (Tensor(X), nn.Sequential(nn.Linear(3, 4), nn.ReLU())):
        for again in (copy.deepcopy(thing), pickle.loads(pickle.dumps(thing)), copy.copy(thing)):
            assert repr(again) == repr(thing)


def test_the_documentation_has_the_table():
    told = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
    rows = [(there, here) for _, _, there, here in ROWS]
    rows += [(f"`{there}=`", f"`{here}=`") for there, here in KEYWORDS.items()]
    for title, expected in (("What is called otherwise", rows), ("Where the same name", OTHER_MEANINGS)):
        table = told[told.index(f"## {title}") :].split("|---|---|\n")[1].split("\n\n")[0].splitlines()
        expected = [f"| {code(there)} | {code(here)} |" for there, here in dict.fromkeys(expected)]
        assert table == expected, "docs/pytorch.md should have:\n" + "\n".join(expected)


def test_the_documentation_s_example_prints_what_it_says(capsys):
    text = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
    program, printed = text.split("```python\n")[1].split("```\n\nprints\n\n```text\n")
    exec(program, {})
    assert capsys.readouterr().out == printed.split("```")[0]


def code(text):
    return text if text.startswith("`") else f"`{text}`".replace("|", "\\|")
