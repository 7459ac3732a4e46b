"""Arrays and tensors of other libraries, into tensors, models and files, and out again."""

import array

import numpy as np
import pytest
from PIL import Image

import minigrad
import minigrad.functional as F
from minigrad import (
    CheckpointError,
    DeviceError,
    DTypeError,
    GraphError,
    Tensor,
    checkpoint,
    nn,
    optim,
)

VALUES = np.arange(6, dtype="float64").reshape(2, 3) / 7


class Arrays:
    """Another library's: `__array__` alone."""

    def __init__(self, values=VALUES, **more):
        self.values = values
        vars(self).update(more)

    def __array__(self, dtype=None, copy=None):
        return self.values


class Dlpack:
    """DLPack alone, on a device of that kind."""

    def __init__(self, kind=1):
        self.kind = kind

    def __dlpack__(self, **options):
        if self.kind not in (1, 3):
            raise BufferError("not on this device")
        return VALUES.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.kind, 0


class OnACard(Arrays):
    """As JAX's arrays, which copy themselves for NumPy, or as PyTorch's, which do not."""

    def __dlpack_device__(self):
        return 2, 0

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise TypeError("use .cpu()")
        return self.values


class Unreadable(Arrays):
    dtype = "float8\n"

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no such type")


@pytest.mark.parametrize(
    "made",
    [Arrays, OnACard, Dlpack, lambda: Dlpack(3), lambda: memoryview(VALUES), lambda: array.array("d", VALUES.ravel())],
)
def test_precision_and_values_of_other_libraries_are_kept(made, device):
    x = Tensor(made(), device=device)
    assert x.dtype == "float64" and str(x.device) == device
    assert x.numpy().tobytes() == VALUES.tobytes()
    assert Tensor(made(), dtype="float32").numpy().tobytes() == VALUES.astype("f").tobytes()


def test_values_are_copied_and_from_numpy_shares():
    values = VALUES.copy()
    copied, shared = Tensor(Arrays(values)), minigrad.from_numpy(Arrays(values))
    values[:] = 5
    assert (copied.numpy() == VALUES).all() and (shared.numpy() == 5).all()


def test_pictures_of_pillow_are_bytes():
    x = Tensor(Image.new("RGB", (3, 2), (1, 2, 3)))
    assert x.dtype == "uint8" and x.shape == (2, 3, 3) and x.numpy()[1, 2].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "data, error, message",
    [
        (Arrays(requires_grad=True), GraphError, r"Tensor: this test_foreign.Arrays requires a gradient, .* \.detach"),
        (
            Dlpack(2),
            DeviceError,
            r"Tensor: NumPy cannot read this test_foreign.Dlpack in the memory of a card: .*\.cpu\(",
        ),
        (OnACard(None), DeviceError, "Tensor: NumPy cannot read this test_foreign.OnACard in the memory of a card"),
        (Unreadable(), DTypeError, r"cannot read this test_foreign.Unreadable of float8\\n: no such type: convert it"),
        (Arrays(np.zeros(2, "float16")), DTypeError, "expected float32, float64, integers or bool, got float16"),
        (Arrays(np.array([None])), DTypeError, "expected float32, float64, integers or bool, got object"),
        (b"abc", DTypeError, "expected float32, float64, integers or bool, got "),
    ],
)
def test_refused(data, error, message):
    with pytest.raises(error, match=message):
        Tensor(data)


def test_where_a_tensor_of_ours_is_asked_for_the_other_is_named_in_full():
    x = Tensor([1.0])
    with pytest.raises(DTypeError, match="relu: x must be a Tensor, got test_foreign.Arrays: wrap it in minigrad.Tens"):
        F.relu(Arrays())
    with pytest.raises(DTypeError, match="add: operands must be .*, got test_foreign.Arrays: wrap it in minigrad.Tens"):
        _ = x + Arrays()


def test_weights_that_do_not_fit_are_told_by_name():
    net = nn.Linear(3, 2)
    before = net.state_dict()
    with pytest.raises(CheckpointError, match=r"load_state_dict: we\\night: .*in the memory of a card"):
        net.load_state_dict({"bias": np.zeros(2), "we\night": Dlpack(2)})
    with pytest.raises(CheckpointError, match=r"load_state_dict: bias: NumPy cannot read"):
        net.load_state_dict({"weight": Arrays(), "bias": Unreadable()}, strict=False)
    assert all(array.tobytes() == before[name].tobytes() for name, array in net.state_dict().items())
    net.load_state_dict({"weight": Arrays(requires_grad=True, detach=Arrays), "bias": np.zeros(2)})
    assert net.weight.numpy().tobytes() == VALUES.astype("f").tobytes()


def test_weights_of_jax_s_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes", reason="the type is NumPy's where JAX or ONNX have brought it").bfloat16
    net, kept = nn.Linear(3, 2), VALUES.astype(bfloat16)
    net.load_state_dict({"weight": Arrays(kept), "bias": kept[:, 0]})
    assert net.weight.numpy().tobytes() == kept.astype("f").tobytes() and net.bias.numpy()[1] == kept[1, 0]


def test_files_take_arrays_of_other_libraries(tmp_path):
    checkpoint.save(tmp_path / "w", {"a": Arrays(), "b": Dlpack()})
    assert all(array.tobytes() == VALUES.tobytes() for array in checkpoint.load(tmp_path / "w")[0].values())
    with pytest.raises(CheckpointError, match="checkpoint: 'a': .*in the memory of a card"):
        checkpoint.save(tmp_path / "v", {"a": Dlpack(2)})
    assert not (tmp_path / "v").exists()


def test_out_by_dlpack():
    x = Tensor(VALUES)
    theirs = np.from_dlpack(x)
    assert np.shares_memory(theirs, x.data) and (theirs == VALUES).all()
    with pytest.raises(GraphError, match="dlpack: the gradient of this tensor would end there: give its .detach"):
        np.from_dlpack(Tensor(VALUES, requires_grad=True))


# ---------------------------------------------------------------- PyTorch's


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is an oracle where installed")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_tensors_of_pytorch_and_back(torch, dtype):
    theirs = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).T
    x = Tensor(theirs)
    assert x.dtype == dtype and x.shape == (3, 2) and x.numpy().tolist() == theirs.tolist()
    for back in (torch.from_dlpack(x), torch.tensor(x.numpy()), torch.asarray(x)):
        assert back.dtype == theirs.dtype and torch.equal(back, theirs)


def test_what_pytorch_has_and_numpy_does_not(torch):
    with pytest.raises(GraphError, match="this torch.Parameter requires a gradient"):
        Tensor(torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(DTypeError, match=r"this torch.Tensor of torch.bfloat16: .*: convert it .* \.float\(\) in PyT"):
        Tensor(torch.ones(2, dtype=torch.bfloat16))
    with pytest.raises((DTypeError, DeviceError), match="this torch.Tensor"):
        Tensor(torch.ones(2, device="meta"))
    with pytest.raises(DTypeError, match="this torch.Tensor of torch.float32: .*[Ss]parse"):
        Tensor(torch.eye(2).to_sparse())


@pytest.mark.parametrize("form", ["state_dict", "named_parameters", "half", "bfloat16"])
def test_weights_both_ways(torch, form, tmp_path):
    """Into ours, the same outputs and gradients; a step of training there and here; out again, also through a file."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    if form in ("half", "bfloat16"):
        theirs = theirs.to(getattr(torch, form)).float()  # weights that this type can hold
    ours = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    state = theirs.state_dict()
    if form == "named_parameters":
        state = dict(theirs.named_parameters())
    elif form != "state_dict":
        state = {name: value.to(getattr(torch, form)) for name, value in state.items()}
    ours.load_state_dict(state)
    before = {name: value.clone() for name, value in theirs.state_dict().items()}  # `state` may be trained with theirs
    for name, value in before.items():
        assert ours.state_dict()[name].tobytes() == value.numpy().tobytes()
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("f")
    for net, loss in ((ours, (ours(Tensor(x)) ** 2).sum()), (theirs, (theirs(torch.tensor(x)) ** 2).sum())):
        loss.backward()
        (optim if net is ours else torch.optim).SGD(net.parameters(), 0.1).step()
    checkpoint.save(tmp_path / "net.safetensors", ours.state_dict())
    for back in (ours.state_dict(), checkpoint.load(tmp_path / "net.safetensors")[0]):
        again = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        again.load_state_dict({name: torch.tensor(value) for name, value in back.items()})
        for name, value in again.state_dict().items():
            assert torch.allclose(value, theirs.state_dict()[name], rtol=1e-5, atol=1e-7), name
            assert not torch.equal(value, before[name])  # it has been trained


def test_a_net_with_batch_normalisation_both_ways(torch):
    """Trained there for a batch, so that its running statistics are its own; and evaluated here, and back there."""
    torch.manual_seed(0)

    def layers(nn):
        return [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(36, 2)]  # fmt: skip

    theirs, ours = torch.nn.Sequential(*layers(torch.nn)), nn.Sequential(*layers(nn))
    x = np.random.default_rng(0).standard_normal((5, 3, 6, 6)).astype("f") * 3 + 1
    theirs(torch.tensor(x))
    assert ours.load_state_dict(theirs.state_dict()) == ([], [], [])
    assert ours[1].num_batches_tracked.item() == 1
    a, b = ours.eval()(Tensor(x)).numpy(), theirs.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    ours.train()(Tensor(x))
    theirs.train()(torch.tensor(x))
    again = torch.nn.Sequential(*layers(torch.nn))
    again.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    for name, value in again.state_dict().items():
        assert value.dtype == theirs.state_dict()[name].dtype
        assert torch.allclose(value, theirs.state_dict()[name], rtol=1e-5), name


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_of_torch_save_is_refused_with_the_way_out(torch, tmp_path, archive):
    net = torch.nn.Linear(2, 3)
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError, match=r"no readable safetensors file: .* torch\.save, .*save_file\(torch.load"):
        checkpoint.load(tmp_path / "net.pth")
    theirs = pytest.importorskip("safetensors.torch")
    theirs.save_file(torch.load(tmp_path / "net.pth", weights_only=True), tmp_path / "net.safetensors")
    ours = nn.Linear(2, 3)
    ours.load_state_dict(checkpoint.load(tmp_path / "net.safetensors")[0])
    assert ours.weight.numpy().tobytes() == net.weight.detach().numpy().tobytes()
