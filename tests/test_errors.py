"""What messages say: names as a terminal may show them, and what to do."""

import os
from pathlib import Path

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor, checkpoint, gradcheck, init, nn, optim
from minigrad.data import ImageArray, center_crop, cut
from minigrad.data.augment import Window
from minigrad.errors import MinigradError, printable, some


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Büro 猫.jpg", "Büro 猫.jpg"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (Path("x/y"), f"x{os.sep}y"),
        ("\ud800", r"\ud800"),
        (7, "7"),
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown
    assert printable(name).encode("utf-8")  # goes out to any terminal


def test_a_name_from_the_disk(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    (name,) = os.listdir(tmp_path)
    assert printable(name) == r"caf\xe9.jpg"


def test_a_few_names_of_many():
    assert some([]) == "" and some(["a", 1], 2) == "a, 1" and some("abcd", 3) == "a, b, c and 1 more"
    assert some(["a\n"], count=5) == "a\\n and 4 more" and some(iter("ab"), 1) == "a and 1 more"


def leaf(*shape, dtype="float64", **options):
    return Tensor(np.ones(shape), dtype=dtype, **{"requires_grad": True, **options})


def sgd(*params):
    return optim.SGD(list(params), 0.1)


def loaded(target, state):
    target.load_state_dict(state)


def step_with_another_gradient():
    w = leaf(2)
    w.grad = leaf(3)
    sgd(w).step()


def in_place(x):
    x.data += 1
    return x * 2


OTHER_GENERATOR = np.random.default_rng(0)


def random_of_its_own(x):
    return x * float(OTHER_GENERATOR.random())


TWO_GROUPS = [{"params": [leaf(2)]}, {"params": [leaf(2)]}]

# A call that is refused, and what its message tells to do.
ADVICE = {
    "groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), "take multiples of it"),
    "a class as a layer": (lambda: nn.Sequential(nn.ReLU), "give layers that are made"),
    "a name taken": (lambda: nn.Sequential(**{"forward": nn.ReLU()}), "choose another"),
    "a layer elsewhere": (
        lambda: nn.standardize_outputs(nn.Linear(2, 2), leaf(1, 2), {nn.Linear(2, 2): 1.0}), "name its layers"
    ),
    "a layer without bias": (
        lambda: nn.standardize_outputs(nn.Linear(2, 2, bias=False), leaf(1, 2)), "make it with bias=True"
    ),
    "weights of another model": (lambda: loaded(nn.Linear(2, 2), {"weight": np.ones(3)}), "build the model as it was"),
    "no parameters": (lambda: sgd(), "give list"),
    "integers to train": (lambda: sgd(leaf(2, dtype="int64", requires_grad=False)), "make it with dtype='float32'"),
    "a parameter twice": (lambda: (lambda w: sgd(w, w))(leaf(2)), "name it once"),
    "state of another optimiser": (
        lambda: loaded(sgd(leaf(2)), optim.SGD(TWO_GROUPS, 0.1).state_dict()), "over the same parameters"
    ),
    "state of another kind": (
        lambda: loaded(sgd(leaf(2)), {**optim.Adam([leaf(2)]).state_dict()}), "another kind of optimiser"
    ),
    "another gradient": (step_with_another_gradient, "zero_grad.* and backward again"),
    "state of another schedule": (
        lambda: loaded(optim.StepLR(sgd(leaf(2)), 1), {"best": 1.0}), "a schedule of the kind that it is from"
    ),
    "rates of other groups": (
        lambda: loaded(optim.StepLR(sgd(leaf(2)), 1), {"count": 1, "base_lrs": [1, 2]}), "give it the groups"
    ),
    "a measure of nan": (lambda: optim.ReduceOnPlateau(sgd(leaf(2))).step(float("nan")), "a lower learning rate"),
    "he for a bias": (lambda: init.he_normal_(leaf(2)), "take normal_ for others"),
    "integers to draw": (lambda: init.zeros_(leaf(2, dtype="int64", requires_grad=False)), "dtype='float32'"),
    "a module to save": (lambda: checkpoint.save("never written", nn.Linear(2, 2)), "give model.state_dict"),
    "a list to save": (lambda: checkpoint.save("never written", {"names": ["a"]}), "goes into metadata"),
    "metadata that JSON lacks": (lambda: checkpoint.save("never written", {}, {"k": {1, 2}}), "lists and dictionaries"),
    "no file": (lambda: checkpoint.load("never written"), "check the path"),
    "not weights": (lambda: checkpoint.load(__file__), "the right file, or take another copy"),
    "a result": (lambda: gradcheck(F.exp, [leaf(2) * 2]), r"give x.detach\(\).requires_grad_\(\)"),
    "float32 on the way": (lambda: gradcheck(lambda x: x.astype("float32"), [leaf(2)]), "in float64 throughout"),
    "a cut graph": (lambda: gradcheck(lambda x: x.detach() * 2, [leaf(2)]), r"look for detach\(\), numpy\(\)"),
    "a change in place": (lambda: gradcheck(in_place, [leaf(2)]), "let it write to a copy"),
    "random numbers": (lambda: gradcheck(random_of_its_own, [leaf(2)]), "from minigrad's generators alone"),
    "a grey image": (lambda: cut(np.ones((4, 4), np.uint8), Window(0, 0, 2)), r"image\[..., None\]"),
    "a large crop": (lambda: center_crop(np.ones((4, 4, 3), np.uint8), 5), "take a smaller crop"),
    "floats as pixels": (lambda: ImageArray(np.ones((2, 4, 4)), [0, 1]), "to 0..255 and convert"),
}  # fmt: skip


@pytest.mark.parametrize("what", ADVICE)
def test_messages_say_what_to_do(what):
    call, advice = ADVICE[what]
    with pytest.raises(MinigradError, match=advice):
        call()
    assert not Path("never written").exists()
