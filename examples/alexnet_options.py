"""How AlexNet is trained: a recipe for each preset, and what the command line of the main job changes in it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import figures
from alexnet import LAYERS, PRESETS
from command_line import OneLineParser, any_path, device_list, folder_name, positive

from minigrad.errors import MinigradError


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained, unless the command line says otherwise."""

    lr: float
    batch_size: int
    epochs: int
    schedule: str  # see SCHEDULES
    momentum: float = 0.9
    weight_decay: float = 0.0005
    dropout: float = 0.5
    colour_noise: float = 0.1  # standard deviation of the paper's PCA colour noise
    accumulate: int = 1  # batches of a step
    fit_images: int = 0  # training views that the first weights are scaled to (minigrad.nn.standardize_outputs)
    conv1_lr: float = 1.0  # conv1's learning rate, as so many times that of the other layers
    conv1_weight_decay: float | None = None  # of conv1's weights, where they have their own

    def apart(self) -> dict[str, tuple[float, float]]:
        """The layers that the optimizer treats by themselves, with learning rate and weight decay of their weights."""
        if self.schedule != "original" and self.conv1_lr == 1 and self.conv1_weight_decay is None:
            return {}
        decay = self.weight_decay if self.conv1_weight_decay is None else self.conv1_weight_decay
        return {"conv1": (self.conv1_lr * self.lr, decay)}


SCHEDULES = {
    "paper": "lr / 10 when the test error stops falling (section 5)",
    "original": "what the run behind the paper did, epoch by epoch",
    "cosine": "warm up, then fall to 0 along a cosine",
}
PAPER = Recipe(lr=0.01, batch_size=128, epochs=90, schedule="paper")
RECIPES = {
    "paper": PAPER,
    "original": PAPER,
    "trainable": Recipe(lr=0.003, batch_size=32, epochs=90, schedule="cosine", dropout=0.2, fit_images=100),
}
DEMO_EPOCHS = 3
WARM_UP = 0.05  # of all steps, with the cosine schedule


def recipe_for(options: argparse.Namespace, before: Mapping[str, Any] | None = None) -> Recipe:
    """The preset's recipe, with what the command line changes.

    before: the recipe of a run that goes on, as its configuration has it, in the preset's place: a run keeps its own,
    whatever the preset has become since.
    """
    if before is not None:
        recipe = Recipe(**{field.name: before[field.name] for field in fields(Recipe) if field.name in before})
        return changed(recipe, options)
    recipe = RECIPES[options.preset]
    if options.data is None:
        recipe = replace(recipe, epochs=DEMO_EPOCHS)
    if options.tiny:
        recipe = replace(recipe, epochs=1, batch_size=16)
    return changed(recipe, options)


def changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe, with what the command line says in place of its own."""
    said = {name: getattr(options, name) for name in ("lr", "batch_size", "epochs", "schedule", "accumulate")}
    return replace(recipe, **{name: value for name, value in said.items() if value is not None})


def layer_list(text: str) -> tuple[str, ...]:
    """An argparse type: names of layers, and ranges of them, "conv1-conv5,fc6", in the order of the net."""
    found: set[str] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        names = [first.strip(), (last or first).strip()]
        if not set(names) <= set(LAYERS):
            raise argparse.ArgumentTypeError(f"layers are {', '.join(LAYERS)}, and ranges conv1-conv5, got {text}")
        begin, end = map(LAYERS.index, names)
        found.update(LAYERS[begin : end + 1])
    return tuple(layer for layer in LAYERS if layer in found)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="alexnet_imagenet.py",
        description="Train the two-column AlexNet of Krizhevsky, Sutskever and Hinton (2012). Without options: on ten "
        "classes of rendered pictures, made on the first run.",
        epilog="Results go to runs/<name>/: config.json, log.csv, metrics.json, weights.safetensors, preparation.npz "
        "and pictures. Exit codes: 0; 1: training failed, or not all could be written; 2: wrong arguments or data; "
        "130, 143, 129: ended by Ctrl-C, SIGTERM, SIGHUP, with the net kept.",
    )
    number, whole = positive(float), positive(int)
    what = parser.add_argument_group("what to do (default: train)").add_mutually_exclusive_group()
    what.add_argument(
        "--evaluate", type=any_path, nargs="+", metavar="WEIGHTS",
        help="test saved weights with one view and with ten; those of several nets: each, and their average (Table 2)",
    )  # fmt: skip
    what.add_argument(
        "--predict", nargs="+", metavar=("WEIGHTS", "IMAGE"),
        help="print the five likeliest classes of each image; a folder stands for all images in it",
    )  # fmt: skip
    what.add_argument(
        "--resume", type=any_path, metavar="RUN",
        help="go on with a run that was stopped: its folder, or one of its checkpoints; its options hold, but for "
        "those given here",
    )  # fmt: skip
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=any_path, metavar="PATH",
        help="folder with train/<class>/*.jpg and val/<class>/*.jpg (jpeg, png, gif, bmp or webp of any size); or "
        "ILSVRC2012's official files, Tiny ImageNet's, a tar or zip of class folders; or a store that "
        "prepare_imagenet.py has packed (default: the demo set)",
    )  # fmt: skip
    data.add_argument("--val-limit", type=whole, metavar="N", help="test on at most N images of each class")
    data.add_argument(
        "--stats-images", type=whole, default=5000, metavar="N",
        help="mean image and colour components from at most N images; a store has its own (default: %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--workers", type=positive(int, zero=True, most=1000), default=2, metavar="N",
        help="threads that load images; 0: load between steps (default: %(default)s)",
    )  # fmt: skip
    learn = parser.add_argument_group("training")
    learn.add_argument(
        "--preset", choices=tuple(PRESETS), default="trainable",
        help="paper; original: the code behind the paper; trainable: starts learning at once (default: %(default)s)",
    )  # fmt: skip
    learn.add_argument(
        "--devices", type=device_list, default=os.environ.get("MINIGRAD_DEVICES", "cpu:0,cpu:1"), metavar="A[,B]",
        help="two devices, a column on each, or one: cpu:N, textbook:N, cuda:N, cudasim:N (default: %(default)s)",
    )  # fmt: skip
    learn.add_argument(
        "--epochs", type=whole, metavar="N",
        help=f"passes over the training images (default: {DEMO_EPOCHS} on the demo set, else 90)",
    )  # fmt: skip
    learn.add_argument("--steps", type=whole, metavar="N", help="exactly N steps, whatever that is in epochs")
    learn.add_argument(
        "--batch-size", type=whole, metavar="N", help="images per step (default: 32; paper, original: 128)"
    )
    learn.add_argument(
        "--accumulate", type=whole, metavar="N", help="add up the gradients of N batches before each step (default: 1)"
    )
    learn.add_argument("--lr", type=number, help="learning rate (default: 0.003; paper, original: 0.01)")
    learn.add_argument(
        "--schedule", choices=tuple(SCHEDULES),
        help="of the learning rate: " + "; ".join(f"{name}: {what}" for name, what in SCHEDULES.items())
        + " (default: cosine; with --preset paper or original: paper)",
    )  # fmt: skip
    learn.add_argument(
        "--init", type=any_path, metavar="WEIGHTS",
        help="begin with these weights, of a run or the ONNX zoo's bvlcalexnet-*.onnx; layers of other shapes begin "
        "anew, and fc8 where the classes have other names",
    )  # fmt: skip
    learn.add_argument(
        "--freeze", type=layer_list, default=(), metavar="LAYERS",
        help="leave layers as they are: conv1-conv5, or conv1,conv2; mostly with --init",
    )  # fmt: skip
    learn.add_argument(
        "--seed", type=positive(int, zero=True, most=2**63 - 1), default=0, metavar="N",
        help="of weights, dropout, order and crops (default: %(default)s)",
    )  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", type=any_path, default=Path("runs"), metavar="DIR", help="where runs go (default: %(default)s)"
    )
    out.add_argument("--name", type=folder_name, help="name of this run (default: numbered)")
    out.add_argument(
        "--checkpoint-minutes", type=number, default=10.0, metavar="M",
        help="minutes between two checkpoints within an epoch (default: %(default)g)",
    )  # fmt: skip
    out.add_argument(
        "--keep-checkpoints", type=whole, default=2, metavar="N",
        help="checkpoints that stay, besides the best (default: %(default)s; one takes 0.5 GB)",
    )  # fmt: skip
    out.add_argument(
        "--json", action="store_true", help="print what --evaluate and --predict found as JSON, and nothing else"
    )
    out.add_argument(
        "--picture", type=any_path, metavar="FILE.png", help="draw the images of --predict with their likeliest classes"
    )
    out.add_argument("--no-figures", action="store_true", help="draw nothing; matplotlib is not needed then")
    out.add_argument("--tiny", action="store_true", help="a few pictures, a few steps: does everything work?")
    options = parser.parse(arguments)
    for name, needed in (("json", options.evaluate or options.predict), ("picture", options.predict)):
        if getattr(options, name) and not needed:
            parser.error(f"--{name}: goes with {'--evaluate or --predict' if name == 'json' else '--predict'}")
    if not (options.no_figures or options.evaluate or options.predict) or options.picture:
        try:
            figures.pyplot()
        except MinigradError as error:
            parser.error(str(error))  # now, not after the training
    return options
