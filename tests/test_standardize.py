"""standardize_outputs: every layer's outputs get mean 0 and the spread asked for."""

import numpy as np
import pytest

from minigrad import Tensor, nn, no_grad
from minigrad.errors import ArgumentError


def net(device):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, device=device), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(54, 7, device=device), nn.ReLU(), nn.Linear(7, 4, device=device),
    )  # fmt: skip


def outputs(model, x):
    """What each Conv2d and Linear gives, one after the other."""
    found = []
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            found.append(x.numpy())
    return found


def test_each_unit_gets_mean_0_and_the_spread(device):
    model = net(device)
    x = Tensor(40 * np.random.default_rng(0).standard_normal((50, 3, 8, 8), dtype="f") + 100, device=device)
    nn.standardize_outputs(model, x, {model[6]: 0.1})
    for z, std in zip(outputs(model.eval(), x), (1.0, 1.0, 0.1)):
        axes = (0, *range(2, z.ndim))
        np.testing.assert_allclose(z.mean(axes), 0, atol=1e-3 * std)
        np.testing.assert_allclose(z.std(axes), std, rtol=1e-3)


def test_leaves_the_model_as_it_was_otherwise(device):
    model = net(device)
    x = Tensor(np.random.default_rng(0).standard_normal((9, 3, 8, 8), dtype="f"), device=device)
    nn.standardize_outputs(model, x)
    assert model.training and model[2].training
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(p.grad is None and p.is_leaf and p.requires_grad for p in model.parameters())
    before = [p.numpy().copy() for p in model.parameters()]
    model(x)
    for p, value in zip(model.parameters(), before):
        np.testing.assert_array_equal(p.numpy(), value)


def test_a_silent_unit_is_left_alone(device):
    model = nn.Sequential(nn.Linear(5, 3, device=device))
    nn.standardize_outputs(model, Tensor(np.zeros((4, 5), "f"), device=device))
    assert all(np.isfinite(p.numpy()).all() for p in model.parameters())


def test_an_error_on_the_way_restores_the_layers(device):
    model = net(device)
    with pytest.raises(Exception, match="conv2d"):
        nn.standardize_outputs(model, Tensor(np.zeros((1, 4, 8, 8), "f"), device=device))
    assert model.training and all("forward" not in vars(module) for module in model.modules())


def test_refuses_a_layer_without_bias(device):
    model = nn.Sequential(nn.Linear(5, 3, bias=False, device=device))
    with pytest.raises(ArgumentError, match="no bias"):
        nn.standardize_outputs(model, Tensor(np.zeros((4, 5), "f"), device=device))


def test_many_outputs_are_averaged_in_pieces(device):
    """2^24 + 1 is 2^24 in float32: one addition after the other would lose all the ones."""
    model = nn.Sequential(nn.Linear(1, 2, device=device))
    with no_grad():
        model[0].weight[...] = 1.0
    x = np.ones((5000, 1), "f")
    x[0] = 2.0**24
    nn.standardize_outputs(model, Tensor(x, device=device))
    w, b = model[0].weight.numpy()[:, 0], model[0].bias.numpy()
    np.testing.assert_allclose(-b / w, x.mean(dtype="float64"), rtol=5e-5)
    np.testing.assert_allclose(1 / w, x.std(dtype="float64"), rtol=5e-5)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 1e30])  # the last: its square is not finite
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refuses_outputs_that_are_not_finite(spoilt, device):
    model = nn.Sequential(nn.Linear(5, 3, device=device))
    before = model.state_dict()
    x = np.random.default_rng(0).standard_normal((4, 5), dtype="f")
    x[2, 1] = spoilt
    with pytest.raises(ArgumentError, match="standardize_outputs: 3 of 3 units of Linear.*without a finite mean"):
        nn.standardize_outputs(model, Tensor(x, device=device))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_standardize_outputs_of_some_layers_leaves_the_others():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    x = Tensor(np.random.default_rng(0).standard_normal((64, 6)).astype("f"))
    before = net.state_dict()
    nn.standardize_outputs(net, x, 2.0, only=[net[2]])
    after = net.state_dict()
    assert {name for name in after if (after[name] != before[name]).any()} == {"2.weight", "2.bias"}
    y = net(x).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 2, rtol=1e-4)
