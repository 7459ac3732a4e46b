"""What decides how a run goes: the setups, each of them the base with one thing changed.

Cut down, so that a run takes about a minute on one core.  The narrow AlexNet has the paper's plan, layer by layer, with
fewer kernels, on pictures of 56 x 56 pixels of which it sees 48 x 48: its maps have 23, 11, 5 and 2 pixels a side
where the paper's have 55, 27, 13 and 6.  CIFAR-10's net is Krizhevsky's of four layers ("19pct" of the original code).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

TINY, CIFAR = "tiny-imagenet-40", "cifar10-jpeg"

# Kernels of conv1 .. conv5 and neurons of fc6, fc7: of each column of the narrow AlexNet.
NARROW = (12, 24, 36, 36, 24, 128, 128)
# Plan of the columns -> how many there are, and the widths of each.
PLANS = {
    "two columns": (2, NARROW),
    # conv3 reads its own column, too: the columns meet in fc6.
    "two columns, apart": (2, NARROW),
    # The net that section 3.2 compares with: as many kernels as one column has, but for conv5 and the layers after it.
    "half": (1, (*NARROW[:4], 2 * NARROW[4], 2 * NARROW[5], 2 * NARROW[6])),
    "one column": (1, tuple(2 * width for width in NARROW)),
}
VIEWS = ("crops and flips", "centre")  # what of a picture the net is shown in training
NORMS = ("none", "across", "within")  # response normalisation: across maps (section 3.3), within maps (original code)
# Across maps as in the original code, not in the paper: conv1's before its ReLU; alpha divided by the 5 maps.
BEFORE_RELU, A_FIFTH = "across, before ReLU", "across, a fifth"
# First weights: nn.standardize_outputs; normal with the paper's spread; as the original code's net for CIFAR-10.
FIRST = ("fitted", "paper", "original")


@dataclass(frozen=True)
class Setup:
    """All that decides the curve of a run, but for its seed, its device's rounding, and the pictures themselves."""

    net: str  # "alexnet" or "cifar"
    data: str  # TINY or CIFAR
    classes: int | None  # so many of them, evenly from their sorted names; None: all
    per_class: int | None  # training pictures of each class, the same ones in all runs; None: all there are
    test_per_class: int | None
    size: int  # side that pictures are scaled to
    crop: int  # side of what the net sees of them
    epochs: int
    batch_size: int
    lr: float
    schedule: str = "cosine"  # 5 % warm-up, then down to 0; or "constant"
    momentum: float = 0.9
    weight_decay: float = 0.0005
    dropout: float = 0.5  # of fc6 and fc7
    views: str = "crops and flips"
    colour_noise: float = 0.1  # standard deviation of the PCA noise; 0: off
    plan: str = "two columns"
    activation: str = "relu"  # of the CIFAR-10 net: or "tanh"
    pool: tuple[int, int] = (3, 2)  # side of the windows, and stride
    norm: str = "across"
    without: str = ""  # a convolution that is left out
    bias: float = 0.1  # first biases of conv2, conv4, conv5, fc6 and fc7
    first: str = "fitted"
    tests: int = 7  # over the run, evenly, on what is held out and on training pictures seen as in a test
    stop_at: float | None = None  # mean training error of an epoch after which no other follows


def as_json(setup: Setup) -> dict[str, Any]:
    """The setup as JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(setup).items()}


def differing(a: Setup, b: Setup) -> tuple[str, ...]:
    """The names of what two setups have different."""
    return tuple(name for name, value in asdict(a).items() if value != getattr(b, name))


ALEXNET = Setup(
    net="alexnet", data=TINY, classes=20, per_class=100, test_per_class=None, size=56, crop=48, epochs=28,
    batch_size=32, lr=0.01,
)  # fmt: skip
# Figure 1: "No regularization of any kind was employed."
FIGURE1 = Setup(
    net="cifar", data=CIFAR, classes=None, per_class=500, test_per_class=100, size=32, crop=32, epochs=32,
    batch_size=128, lr=0.01, schedule="constant", weight_decay=0.0, dropout=0.0, views="centre", colour_noise=0.0,
    norm="none", bias=0.0, tests=1, stop_at=0.25,
)  # fmt: skip
# That the search of Figure 1 tries, by first weights: with the original code's pixels are raw, 58 times larger.
RATES = {"fitted": (0.003, 0.01, 0.03, 0.1), "original": (0.0003, 0.001, 0.003, 0.01, 0.03)}
SEARCHED = 4  # epochs of the search
# The original code's pair of configurations, 19pct and 18pct: the second normalises within maps after two pools.
CIFAR_NET = replace(
    FIGURE1, per_class=1000, test_per_class=None, epochs=10, schedule="cosine", weight_decay=0.004,
    views="crops and flips", size=32, crop=28, tests=5, stop_at=None,
)  # fmt: skip
# The first steps, at the paper's 0.01 for batches of 128.  Without dropout, which only makes them noisier.
EARLY = replace(ALEXNET, epochs=8, lr=0.0025, schedule="constant", dropout=0.0, first="paper", tests=1)


@dataclass(frozen=True)
class Arm:
    """One setup under a name, and what is to be measured of its net in the end, besides its curve."""

    name: str
    setup: Setup
    measured: tuple[str, ...] = ()  # "ten views", "neighbours", "colour", "first losses"


def _arms() -> dict[str, Arm]:
    base, early = ALEXNET, EARLY
    setups = {
        "alexnet": base,
        "alexnet-no-dropout": replace(base, dropout=0.0),
        "alexnet-no-decay": replace(base, weight_decay=0.0),
        "alexnet-centre": replace(base, views="centre"),
        "alexnet-no-colour-noise": replace(base, colour_noise=0.0),
        "alexnet-pool-2-2": replace(base, pool=(2, 2)),
        "alexnet-no-lrn": replace(base, norm="none"),
        "alexnet-lrn-before-relu": replace(base, norm=BEFORE_RELU),
        "alexnet-lrn-a-fifth": replace(base, norm=A_FIFTH),
        "alexnet-half": replace(base, plan="half"),
        "alexnet-apart": replace(base, plan="two columns, apart"),
        "alexnet-one-column": replace(base, plan="one column"),
        **{f"alexnet-no-{layer}": replace(base, without=layer) for layer in ("conv2", "conv3", "conv4", "conv5")},
        **{f"early-bias-{bias:g}": replace(early, bias=bias) for bias in (1.0, 0.1, 0.0)},
        "early-fitted": replace(early, bias=1.0, first="fitted"),
        **{f"cifar-lrn-{norm}": replace(CIFAR_NET, norm=norm) for norm in NORMS},
    }
    measured: Mapping[str, tuple[str, ...]] = {
        "alexnet": ("colour", "neighbours", "ten views"),
        "alexnet-one-column": ("colour",),
    }
    early_too = ("first losses",)
    return {
        name: Arm(name, setup, early_too if name.startswith("early") else measured.get(name, ()))
        for name, setup in setups.items()
    }


ARMS = _arms()


def searched(kind: str) -> list[Arm]:
    """The runs by which Figure 1's rate is found; kind: "relu", "tanh", "original-relu" or "original-tanh"."""
    base = replace(figure1(kind, 0.0).setup, epochs=SEARCHED, stop_at=None)
    return [Arm(f"search-{kind}-{rate:g}", replace(base, lr=rate)) for rate in RATES[base.first]]


def figure1(kind: str, rate: float) -> Arm:
    original, _, activation = kind.rpartition("-")
    setup = replace(FIGURE1, activation=activation, lr=rate)
    if original:  # with its small first weights learning begins slowly: four times as many steps an epoch, and longer
        setup = replace(setup, first="original", batch_size=FIGURE1.batch_size // 4, epochs=3 * FIGURE1.epochs)
    return Arm(f"figure1-{kind}", setup)


def quick(arm: Arm) -> Arm:
    """The same in seconds: a few pictures, an epoch or two.  It shows that everything works, and nothing else."""
    few = 2 if arm.setup.net == "alexnet" else 8
    setup = replace(arm.setup, per_class=few, test_per_class=2, epochs=min(arm.setup.epochs, 2), batch_size=16, tests=2)
    return replace(arm, setup=setup)
