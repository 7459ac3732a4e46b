"""The LeNet-5 example: the paper's numbers, its connection table, the gradient of the whole net, and the program."""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor, checkpoint, gradcheck, optim
from minigrad.errors import ArgumentError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from drawn_digits import drawn_digits  # noqa: E402
from lenet import TABLE_I, VARIANTS, LeNet5, Subsample, squash  # noqa: E402
from lenet_mnist import Batches, prepare  # noqa: E402


@pytest.fixture(scope="module")
def digits():
    return drawn_digits(train=600, test=200)


def random_images(n, dtype="float64"):
    return np.random.default_rng(0).standard_normal((n, 1, 32, 32)).astype(dtype)


# ---------------------------------------------------------------- the net


def test_parameters_are_those_of_the_paper(device):
    net = LeNet5(device=device)
    layers = {name: layer.num_parameters() for name, layer in net.named_children()}
    # Section II.B, layer by layer; the output layer is ours.
    assert layers == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164, "output": 850}
    assert net.num_parameters() == 60000 + 850
    assert LeNet5(variant="relu", device=device).num_parameters() == 156 + 2416 + 48120 + 10164 + 850


def test_table_1():
    assert len(TABLE_I) == len(set(TABLE_I)) == 16
    assert [len(maps) for maps in TABLE_I] == [3] * 6 + [4] * 9 + [6]
    # "The first six take inputs from every contiguous subset of three, the next six from every one of four."
    contiguous = [{(start + k) % 6 for k in range(size)} for size in (3, 4) for start in range(6)]
    assert sorted(map(sorted, TABLE_I[:12])) == sorted(map(sorted, contiguous))
    assert [sum(m in maps for maps in TABLE_I) for m in range(6)] == [10] * 6  # the columns of the table


def test_squash_keeps_one_at_one(device):
    x = Tensor(np.array([-1.0, 0.0, 1.0, 50.0]), device=device)
    np.testing.assert_allclose(squash(x).numpy(), [-1, 0, 1, 1.7159], atol=1e-4)


def test_subsample_is_the_formula(device):
    layer = Subsample(2, device, "float64")
    layer.load_state_dict({"coefficient": [[[0.5]], [[-2.0]]], "bias": [[[0.1]], [[0.3]]]})
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 6))
    total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
    a = total * np.array([0.5, -2.0])[:, None, None] + np.array([0.1, 0.3])[:, None, None]
    np.testing.assert_allclose(layer(Tensor(x, device=device)).numpy(), 1.7159 * np.tanh(2 / 3 * a), rtol=1e-12)


def test_connection_table_is_respected(device, digits):
    net = LeNet5(device=device)
    absent = np.ones((16, 6), bool)
    for o, maps in enumerate(TABLE_I):
        absent[o, list(maps)] = False
    before = net.c3.weight.numpy().copy()
    assert (before[absent] == 0).all() and (before[~absent] != 0).all()
    optimizer = optim.Adam(net.parameters(), 0.01, weight_decay=0.01)
    for batch in Batches(digits.train_images[:150], digits.train_labels[:150], 50, seed=0):
        optimizer.zero_grad()
        F.cross_entropy(net(Tensor(batch.images, device=device)), batch.labels).backward()
        gradient = net.c3.weight.grad.numpy()
        assert (gradient[absent] == 0).all() and (gradient[~absent] != 0).any()
        optimizer.step()
    after = net.c3.weight.numpy()
    assert (after[absent] == 0).all() and (after[~absent] != before[~absent]).all()


def test_maps_of_c3_see_their_maps_only(device):
    """Changing map m of S2 changes exactly the maps of C3 that have m in the table."""
    net = LeNet5(device=device, dtype="float64")
    x = np.random.default_rng(0).standard_normal((1, 6, 14, 14))
    y = net.c3(Tensor(x, device=device)).numpy()
    for m in range(6):
        changed = x.copy()
        changed[:, m] += 1
        difference = np.abs(net.c3(Tensor(changed, device=device)).numpy() - y).max((0, 2, 3))
        assert [o for o in range(16) if difference[o] > 1e-9] == [o for o in range(16) if m in TABLE_I[o]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_the_whole_net(variant, device):
    net = LeNet5(10, variant, device, "float64")
    x, target = Tensor(random_images(3), device=device, requires_grad=True), [1, 7, 3]
    parameters = [x, *net.parameters()]
    assert len(parameters) == (15 if variant == "1998" else 11)
    assert gradcheck(lambda *_: F.cross_entropy(net(x), target), parameters, direction=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_as_torch(variant, device):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    net = LeNet5(10, variant, device, "float64")
    p = {name: torch.tensor(value) for name, value in net.state_dict().items()}
    functional = torch.nn.functional

    def scaled_tanh(a):
        return 1.7159 * torch.tanh(2 / 3 * a)

    def pool(x, name):
        if variant == "relu":
            return functional.max_pool2d(x, 2)
        total = 4 * functional.avg_pool2d(x, 2)
        return scaled_tanh(total * p[f"{name}.coefficient"] + p[f"{name}.bias"])

    act = torch.relu if variant == "relu" else scaled_tanh
    x = torch.tensor(random_images(2))
    x = pool(act(functional.conv2d(x, p["c1.weight"], p["c1.bias"])), "s2")
    x = pool(act(functional.conv2d(x, p["c3.weight"], p["c3.bias"])), "s4").flatten(1)
    for name in ("c5", "f6"):
        x = act(functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"]))
    x = functional.linear(x, p["output.weight"], p["output.bias"])
    ours = net(Tensor(random_images(2), device=device)).numpy()
    np.testing.assert_allclose(ours, x.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_signals_start_at_a_typical_size(variant, device, digits):
    """Neither dying out nor blowing up on the way: the logits of the first step are of the order of 1."""
    net = LeNet5(10, variant, device)
    logits = net(Tensor(prepare(digits.test_images), device=device)).numpy()
    assert 0.1 < logits.std() < 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_learns(variant, device, digits):
    net = LeNet5(10, variant, device)
    optimizer = optim.Adam(net.parameters(), 0.004)
    losses = []
    for batch in Batches(digits.train_images, digits.train_labels, 30, seed=0):  # 20 steps
        optimizer.zero_grad()
        loss = F.cross_entropy(net(Tensor(batch.images, device=device)), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8 * np.log(10)
    assert np.mean(losses[-5:]) < 0.75 * np.log(10)


def test_unknown_variant():
    with pytest.raises(ArgumentError, match="variant must be one of 1998, relu, got '2012'"):
        LeNet5(variant="2012")


# ---------------------------------------------------------------- the data


def test_prepared_images():
    images = np.zeros((2, 28, 28), np.uint8)
    images[1] = 255
    x = prepare(images)
    assert x.shape == (2, 1, 32, 32) and x.dtype == np.float32
    np.testing.assert_allclose(x[0], -0.1, rtol=1e-6)
    np.testing.assert_allclose(x[1, 0, 2:30, 2:30], 1.175, rtol=1e-6)
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    np.testing.assert_allclose(x[1, 0, border], -0.1, rtol=1e-6)


def test_drawn_digits_are_reproducible():
    a, b, other = drawn_digits(20, 10), drawn_digits(30, 10), drawn_digits(20, 10, seed=1)
    assert a.train_images.shape == (20, 28, 28) and a.train_images.dtype == np.uint8
    assert np.array_equal(a.train_labels, np.arange(20) % 10)
    assert np.array_equal(a.train_images, b.train_images[:20])  # whatever the size of the set
    assert not np.array_equal(a.train_images, other.train_images)
    assert not np.array_equal(a.train_images[:10], a.test_images)
    assert (a.train_images.max((1, 2)) > 100).all()  # every picture shows something


def test_batches_hold_every_image_once(digits):
    batches = Batches(digits.test_images, digits.test_labels, 30, seed=3)
    first, second = (np.concatenate([b.indices for b in batches.epoch(e)]) for e in (1, 2))
    assert np.array_equal(np.sort(first), np.arange(200)) and np.array_equal(np.sort(second), np.arange(200))
    assert not np.array_equal(first, second)
    sizes = [len(b.labels) for b in batches]
    assert sizes == [30] * 6 + [20] and len(batches) == 7
    for batch in batches:
        assert np.array_equal(batch.images, prepare(digits.test_images[batch.indices]))
        assert np.array_equal(batch.labels, digits.test_labels[batch.indices])


# ---------------------------------------------------------------- the program


def main(capsys, *options):
    """(exit code, standard output, standard error) of the program, in this process."""
    import lenet_mnist

    code = lenet_mnist.main([str(option) for option in options])
    return code, *capsys.readouterr()


def program(*options, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "lenet_mnist.py"), *options]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_tiny_run_leaves_what_it_names(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="draws the pictures")
    done = program("--tiny", "--name", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "first"
    names = sorted(path.name for path in run.iterdir())
    pictures = ["c1_kernels.png", "learning_curves.png", "mistakes.png"]
    assert names == sorted(["config.json", "log.csv", "metrics.json", "weights.safetensors", *pictures])
    assert all(name in done.stdout for name in names) and "Try next" in done.stdout
    for name in pictures:
        assert (run / name).read_bytes()[:4] == b"\x89PNG"
    config = json.loads((run / "config.json").read_text())
    assert config["variant"] == "1998" and config["data"] == "drawn digits" and config["train_images"] == 200
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert [row["split"] for row in rows] == (["train"] * 10 + ["val"]) * 2
    state, facts = checkpoint.load(run / "weights.safetensors")
    assert facts["classes"] == list("0123456789") and facts["variant"] == "1998"
    LeNet5(10, "1998").load_state_dict(state)

    code, _, err = main(capsys, "--tiny", "--name", "first", "--no-figures", "--out", tmp_path / "runs")
    assert code == 2 and "never overwritten" in err


def test_reads_idx_files(tmp_path, digits, capsys):
    folder = tmp_path / "my-fashion"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte.gz", digits.train_images[:60])
    write_idx(folder / "train-labels-idx1-ubyte.gz", digits.train_labels[:60])
    write_idx(folder / "t10k-images-idx3-ubyte", digits.test_images[:40])
    write_idx(folder / "t10k-labels-idx1-ubyte", digits.test_labels[:40])
    options = ("--variant", "relu", "--epochs", "1", "--batch-size", "16", "--no-figures", "--out", tmp_path / "here")
    code, _, err = main(capsys, "--data", folder, *options)
    assert code == 0, err
    run = tmp_path / "here" / "lenet-relu-001"
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "log.csv", "metrics.json", "weights.safetensors"]
    config = json.loads((run / "config.json").read_text())
    assert (config["train_images"], config["test_images"], config["recipe"]["batch_size"]) == (60, 40, 16)
    assert "ankle boot" in config["classes"]  # the folder's name says fashion


BAD = {
    "--lr 0": "argument --lr: must be above 0, got 0",
    "--lr nan": "argument --lr: must be above 0, got nan",
    "--epochs two": "argument --epochs: invalid whole number value: 'two'",
    "--batch-size -3": "argument --batch-size: must be above 0, got -3",
    "--variant 2012": "argument --variant: invalid choice: '2012'",
    "--device cpu:0,cpu:1": "argument --device: give one device",
    "--device tpu": "argument --device: device:",
    "--speed 3": "unrecognized arguments: --speed 3",
    "--epochs ٣": "argument --epochs: invalid whole number value: '٣'",
    "--lr 1e-310": "argument --lr: must be a normal number in float32",
    "--seed 9223372036854775808": "argument --seed: must be at most 9223372036854775807",
    "--device cpu:٣": "argument --device: device: expected a name",
    "--name ../x": "argument --name: must be a name, not a path",
    "--name .": "argument --name: must be a name, not a path",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_options_are_one_line(options, tmp_path, capsys):
    import lenet_mnist

    with pytest.raises(SystemExit) as stop:
        lenet_mnist.main(["--tiny", "--no-figures", "--out", str(tmp_path), *options.split()])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"lenet_mnist.py: {BAD[options]}") and error.count("\n") == 1


def test_wrong_folders_are_one_line(tmp_path, digits, capsys):
    options = "--no-figures", "--out", tmp_path / "runs"
    code, out, err = main(capsys, "--data", tmp_path / "nowhere", *options)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "train-images-idx3-ubyte" in err and "no such folder" in err
    for part, labels in (("train", digits.train_labels), ("t10k", digits.test_labels)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", np.zeros((len(labels), 20, 20)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    code, _, err = main(capsys, "--data", tmp_path, *options)
    assert code == 2 and err.count("\n") == 1
    assert "needs images of 28 x 28" in err and "(600, 20, 20)" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is what this run is about
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, capsys):
    import lenet_mnist

    options = ["--tiny", "--no-figures", "--variant", "relu", "--lr", "1e30", "--out", str(tmp_path)]
    assert lenet_mnist.main(options) == 1
    assert "start again with a lower --lr" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow
@pytest.mark.parametrize(
    "how, spoilt",
    [("epoch", np.nan), ("epoch", 1e38), ("interrupted", 1e38)],
    ids=["epoch, nan", "epoch, finite, but not its products", "interrupted, finite, but not its products"],
)
def test_good_weights_are_kept_where_the_net_diverges_later(tmp_path, capsys, monkeypatch, spoilt, how):
    import lenet_mnist

    weights, after_the_first_epoch = tmp_path / "mine" / "weights.safetensors", []

    def diverging(model, *args, real=lenet_mnist.train_epoch, **options):
        step = real(model, *args, **options)
        if options["epoch"] == 2:
            after_the_first_epoch.append(weights.read_bytes())
            state = model.state_dict()
            model.load_state_dict({**state, "c3.weight": np.full_like(state["c3.weight"], spoilt)})
            if how == "interrupted":
                raise KeyboardInterrupt
        return step

    monkeypatch.setattr(lenet_mnist, "train_epoch", diverging)
    options = ["--tiny", "--no-figures", "--variant", "relu", "--out", str(tmp_path), "--name", "mine"]
    assert lenet_mnist.main(options) == (130 if how == "interrupted" else 1)
    out, err = capsys.readouterr()
    assert "weights saved earlier are kept" in err and "epoch 2:" not in out
    assert [weights.read_bytes()] == after_the_first_epoch


def test_a_tie_is_a_mistake_in_the_pictures_too(tmp_path, monkeypatch):
    """What the picture says of an image that is as much like another class as like its own."""
    plt = pytest.importorskip("matplotlib.pyplot", reason="draws the pictures")
    import lenet_mnist

    p = np.array([[0.5, 0.5, 0, 0], [0.1, 0.2, 0.1, 0.6], [0.9, 0.1, 0, 0]])
    test = Batches(np.zeros((3, 28, 28), np.uint8), np.array([0, 2, 0]), 3)
    titles = []
    monkeypatch.setattr(plt.Axes, "set_title", lambda axis, text, **_: titles.append(text))
    lenet_mnist.draw_mistakes(test, p, tuple("abcd"), tmp_path / "mistakes.png", "LeNet")
    assert titles == ["d? 60%\nis: c", "b? 50%\nis: a"]


def test_what_to_try_next_keeps_what_was_asked_for(tmp_path, capsys, monkeypatch):
    import lenet_mnist

    monkeypatch.setattr(sys, "argv", ["my programs/lenet_mnist.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", *sys.argv])
    options = ["--data", "drawn", "--tiny", "--no-figures", "--epochs", "1", "--seed", "3", "--lr", "0.01"]
    assert lenet_mnist.main([*options, "--out", str(tmp_path / "my runs"), "--name", "x"]) == 0
    lines = [line.split("  #")[0] for line in capsys.readouterr().out.split("Try next:\n")[1].splitlines()]
    start, rest = "python3 'my programs/lenet_mnist.py'", f"--out '{tmp_path / 'my runs'}' --no-figures"
    assert [line.strip() for line in lines] == [
        f"{start} --data drawn --epochs 1 --lr 0.01 --seed 3 {rest} --tiny --variant relu",
        f"{start} --data drawn --lr 0.01 --seed 3 {rest} --tiny --epochs 3",
        f"{start} --lr 0.01 --seed 3 {rest} --data DIR",
    ]
