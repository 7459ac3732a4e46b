"""What a tensor holds, how it prints, and how it changes in place."""

import numpy as np
import pytest

import minigrad
from minigrad import DeviceError, DTypeError, GraphError, ShapeError, Tensor, no_grad

# ---------------------------------------------------------------- element types and shapes


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        ([1.5, 2], "float32"),
        ([[0.1], [0.2]], "float32"),
        (np.float64(1.5), "float64"),
        (np.zeros(2), "float64"),
        (np.zeros(2, "float32"), "float32"),
        (3, "int64"),
        ([1, 2], "int64"),
        (np.zeros(2, "uint8"), "uint8"),
        (True, "bool"),
        ([True, False], "bool"),
    ],
)
def test_element_types(data, dtype, device):
    x = Tensor(data, device=device)
    assert x.dtype == dtype and x.shape == np.shape(data)
    np.testing.assert_array_equal(x.numpy(), np.asarray(data, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_dtype_converts(dtype, device):
    assert Tensor([0, 1], dtype=dtype, device=device).dtype == dtype
    assert Tensor([0.0, 1.0], dtype=dtype, device=device).numpy().tolist() == [0, 1]


@pytest.mark.parametrize(
    "data", [np.zeros(2, "float16"), np.zeros(2, "complex64"), np.array([None]), "text", [1j], None, {"a": 1}]
)
def test_refused_data(data):
    with pytest.raises(DTypeError, match="Tensor: expected float32, float64, integers or bool"):
        Tensor(data)


def test_refused_dtype_and_ragged_lists():
    with pytest.raises(DTypeError, match="dtype must be float32, float64, an integer or bool, got float16"):
        Tensor([1.0], dtype="float16")
    with pytest.raises(ShapeError, match="not rectangular"):
        Tensor([[1.0, 2.0], [3.0]])
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients, this one is int64"):
        Tensor([1], requires_grad=True)


@pytest.mark.cpu_only("sharing memory with NumPy")
def test_data_is_copied_and_from_numpy_shares():
    array = np.zeros(3)
    copied, shared = Tensor(array), minigrad.from_numpy(array)
    array[0] = 5
    assert copied.numpy()[0] == 0 and shared.numpy()[0] == 5
    shared[1] = 7.0
    assert array[1] == 7
    assert Tensor(copied).numpy() is not copied.numpy() and not np.shares_memory(Tensor(copied).data, copied.data)


def test_a_tensor_of_a_tensor_stays_on_its_device():
    x = Tensor([1.0], device="cpu:2")
    assert str(Tensor(x).device) == "cpu:2" and str(Tensor(x, device="cpu:1").device) == "cpu:1"


def test_0d_stays_0d(device):
    x = Tensor(2.0, True, device)
    arithmetic = [x + 1, x * x, x / 3, x**2, -x, x > 1]
    functions = [x.exp(), x.log(), x.sqrt(), x.tanh(), x.sigmoid(), x.relu(), x.sum(), x.mean(), x.max()]
    moves = [x.astype("float64"), x.reshape(()), x.T, x[()], x.detach(), x.to("cpu:3")]
    for y in arithmetic + functions + moves:
        kind = np.ndarray if y.device.on_host else type(x.data)
        assert isinstance(y.data, kind) and y.shape == ()
    (x * x).backward()
    assert isinstance(x.grad.data, type(x.data)) and x.grad.shape == () and x.grad.item() == 4


def test_memory_order_of_the_argument_is_kept():
    assert Tensor(np.ones((2, 3)).T).data.flags.f_contiguous
    assert Tensor(np.ones((2, 3))[::-1]).numpy().shape == (2, 3)


# ---------------------------------------------------------------- looking at it


def test_repr(device):
    x = Tensor([1.0, 2.5], True, device)
    assert repr(x) == f"Tensor([1. , 2.5], shape=(2,), dtype=float32, device='{device}', requires_grad=True)"
    assert "op=multiply" in repr(x * 2) and "requires_grad" not in repr(Tensor([1]))
    assert len(repr(Tensor(np.zeros((100, 100))))) < 500


@pytest.mark.cpu_only("sharing memory with NumPy")
def test_numpy_is_a_read_only_view():
    x = Tensor([1.0, 2.0])
    view = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5
    x[0] = 5.0
    assert view[0] == 5 and x.data.flags.writeable


@pytest.mark.cpu_only("sharing memory with NumPy")
def test_np_asarray():
    x = Tensor([1.0, 2.0])
    assert np.asarray(x).dtype == np.float32 and np.asarray(x, "float64").dtype == np.float64
    assert np.shares_memory(np.asarray(x), x.data)
    own = np.array(x)
    own[0] = 9
    assert x.numpy()[0] == 1
    np.testing.assert_allclose(x, [1, 2])
    with pytest.raises(TypeError):
        np.exp(x)


def test_numbers_from_tensors():
    assert Tensor([[3.5]]).item() == 3.5 and type(Tensor(3).item()) is int
    assert float(Tensor(2.5)) == 2.5 and int(Tensor(2.0)) == 2 and bool(Tensor(0.0)) is False
    assert ["a", "b", "c"][Tensor(1)] == "b" and list(range(Tensor(3))) == [0, 1, 2]
    with pytest.raises(ShapeError, match=r"item: the tensor must have exactly one element, it has 2: \(2,\)"):
        Tensor([1.0, 2.0]).item()
    with pytest.raises(ShapeError, match=r"bool: the truth of a tensor \(2,\) is ambiguous"):
        bool(Tensor([1.0, 2.0]))
    with pytest.raises(DTypeError, match="index: only integer tensors can index, this one is float32"):
        [1, 2][Tensor(1.0)]


def test_length_and_iteration():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], True)
    assert len(x) == 2 and [row.numpy().tolist() for row in x] == [[1, 2], [3, 4]]
    a, b = x
    (a * b).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[3, 4], [1, 2]])
    for wrong in (len, list):
        with pytest.raises(ShapeError, match="a 0-d tensor has no length"):
            wrong(Tensor(1.0))


def test_tensors_are_dictionary_keys():
    x, y = Tensor([1.0]), Tensor([1.0])
    assert {x: 1, y: 2}[x] == 1 and len({x, y, x}) == 2


def test_arrays_on_the_left_leave_the_work_to_the_tensor():
    x = Tensor([1.0, 2.0], True)
    for y in (np.ones((3, 2), "float32") * x, np.float32(2) * x, np.ones((3, 2)) @ x, 1 - x):
        assert isinstance(y, Tensor) and y.requires_grad
    assert isinstance(np.float64(2) > x, Tensor)


def test_size_and_ndim():
    x = Tensor(np.zeros((2, 0, 3)))
    assert (x.size, x.ndim, x.shape) == (0, 3, (2, 0, 3))


# ---------------------------------------------------------------- in place


def test_in_place_arithmetic(device):
    x = Tensor([2.0, 4.0], device=device)
    same, memory = x, x.data
    x += 1
    x -= Tensor([1.0, 1.0], device=device)
    x *= 3
    x /= 2
    assert x is same and x.data is memory and x.version.value == 4
    np.testing.assert_array_equal(x.numpy(), [3, 6])


def test_every_in_place_change_is_counted(device):
    x = Tensor(np.zeros((2, 3)), device=device)
    changes = [
        lambda: x.__setitem__(0, 1.0),
        lambda: x.__setitem__((slice(None), 1), Tensor([1.0, 2.0], device=device)),
        lambda: x.__setitem__(x > 0, 5.0),
        lambda: x.copy_(np.ones((2, 3))),
        lambda: x.__iadd__(1),
        lambda: x.detach().__imul__(2),
        lambda: x[1].__iadd__(1),
        lambda: x.T.copy_(np.ones((3, 2))),
    ]
    for i, change in enumerate(changes):
        change()
        assert x.version.value == i + 1
    np.testing.assert_array_equal(x.numpy(), np.ones((2, 3)))


def test_in_place_on_what_needs_a_gradient():
    x, w = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=True)
    with pytest.raises(GraphError, match="assignment to elements: would lose a gradient"):
        w[0] = 1.0
    with pytest.raises(GraphError, match="assignment to elements: would lose a gradient"):
        x[0] = w[0]
    with pytest.raises(GraphError, match="copy_: would lose a gradient"):
        w.copy_(x)
    before = x
    x += w  # becomes an op
    assert x is not before and before.numpy().tolist() == [1, 2] and x.requires_grad
    with no_grad():
        memory = w.data
        w -= 1
        w[0] = 9.0
    assert w.data is memory and w.is_leaf and w.numpy().tolist() == [9, 3]


def test_in_place_refusals():
    x = Tensor([1.0, 2.0], device="cpu:0")
    with pytest.raises(DeviceError, match="in-place change of a tensor on cpu:0 from cpu:1"):
        x += Tensor([1.0, 2.0], device="cpu:1")
    with pytest.raises(ShapeError, match=r"copy_: source must have shape \(2,\), it has \(\)"):
        x.copy_(1.0)
    with pytest.raises(GraphError, match="requires_grad_: this tensor is the result of multiply"):
        (x.requires_grad_() * 2).requires_grad_(False)


def test_detach_shares_memory_but_not_the_graph():
    x = Tensor([1.0, 2.0], True)
    y = (x * 2).detach()
    assert y.is_leaf and not y.requires_grad
    z = x.detach()
    assert z.data is x.data and z.version is x.version


def test_ops_are_methods():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.T.shape == (2, 2) and x.flatten().shape == (4,) and x.reshape(4).sum().item() == 10
    assert x.mean(axis=0, keepdims=True).shape == (1, 2) and x.max().item() == 4
    assert x.astype("float64").dtype == np.float64 and str(x.to("cpu:1").device) == "cpu:1"


# ---------------------------------------------------------------- formats, and what would cut the graph


def test_formats_and_rounding(device):
    loss = Tensor(2.34567, True, device)
    assert f"{loss:.3f}" == "2.346" and f"{Tensor([7], device=device):5d}" == "    7"
    assert f"{loss}" == str(loss) and str(loss).startswith("Tensor(2.3457")
    assert round(loss, 2) == 2.35 and round(loss) == 2 and isinstance(round(loss), int)
    for wrong in (lambda x: f"{x:.3f}", round):
        with pytest.raises(ShapeError, match="item: the tensor must have exactly one element, it has 2"):
            wrong(Tensor([1.0, 2.0], device=device))


def test_a_graph_is_not_cut_without_a_word(device):
    x, plain = Tensor([1.0, 2.0], True, device), Tensor([1.0, 2.0], device=device)
    for cut in (
        lambda: np.asarray(x), lambda: np.array([x * 2, x]), lambda: Tensor([x, x]), lambda: Tensor([x[0], x[1]]),
        lambda: plain + [x[0], x[1]],
    ):  # fmt: skip
        with pytest.raises(GraphError, match="requires a gradient, which would end here without a word.*stack"):
            cut()
    np.testing.assert_array_equal(np.asarray(x.detach()), [1, 2])
    np.testing.assert_array_equal(Tensor([plain, plain], device=device).numpy(), [[1, 2], [1, 2]])
    with minigrad.no_grad():
        np.testing.assert_array_equal(np.asarray(x), [1, 2])
        np.testing.assert_array_equal(Tensor([x, x], device=device).numpy(), [[1, 2], [1, 2]])


def test_parameters_and_buffers_say_what_they_are():
    assert repr(minigrad.nn.Parameter([1.0], device="cpu:0")) == (
        "Parameter([1.], shape=(1,), dtype=float32, device='cpu:0', requires_grad=True)"
    )
    assert repr(minigrad.nn.Buffer([1.0], "cpu:0")) == "Buffer([1.], shape=(1,), dtype=float32, device='cpu:0')"
