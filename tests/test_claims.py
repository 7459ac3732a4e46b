"""The measurements of the paper's claims: pairs, runs that go on, numbers, intervals, verdicts, and their page."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from narrow import coloured_classes

import minigrad
from minigrad.data import ImageArray
from minigrad.errors import ArgumentError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import claims  # noqa: E402
import paper_claims.runs as runs_module  # noqa: E402
from alexnet import AlexNet  # noqa: E402
from paper_claims import exams, setups, timing  # noqa: E402
from paper_claims import measures as m  # noqa: E402
from paper_claims.nets import PAPER_FAN_IN, build  # noqa: E402
from paper_claims.pictures import Library, scale_of, some_classes, train_loader  # noqa: E402
from paper_claims.rows import CLAIMS, DEVICES, arms, fastest, searches  # noqa: E402
from paper_claims.setups import (  # noqa: E402
    A_FIFTH,
    ALEXNET,
    ARMS,
    BEFORE_RELU,
    EARLY,
    FIGURE1,
    NARROW,
    PLANS,
    RATES,
    Arm,
    as_json,
    differing,
    figure1,
    quick,
)  # fmt: skip
from paper_claims.table import Found, word_of, write_page  # noqa: E402
from paper_claims.verdicts import NONE, NOT_SEEN, REPRODUCED, WEAKER, interval, judge  # noqa: E402

# ---------------------------------------------------------------- pairs


def setups_of(comparison):
    """The two setups of a comparison; those of Figure 1 with rates that a search may have found."""
    found = {name: arm.setup for name, arm in ARMS.items()}
    for kind in ("relu", "tanh", "original-relu", "original-tanh"):
        arm = figure1(kind, 0.01 if "relu" in kind else 0.03)
        found[arm.name] = arm.setup
    return [found[name] for name in comparison.arms]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.name)
def test_pairs_differ_in_what_they_say_and_in_nothing_else(claim):
    for comparison in claim.comparisons:
        a, b = setups_of(comparison)
        assert differing(a, b) == comparison.differs
        assert a.data == b.data == claim.data
        searched = claim.name.startswith("relu")  # where the rate of each is chosen by itself, as in the paper
        assert len(comparison.differs) == (2 if searched else 0 if comparison.arms[0] == comparison.arms[1] else 1)


def test_the_paper_side_of_every_pair_is_the_base_or_its_like():
    sides = {comparison.arms[0] for claim in CLAIMS.values() for comparison in claim.comparisons}
    assert sides == {
        "alexnet",
        "figure1-relu",
        "figure1-original-relu",
        "cifar-lrn-across",
        "cifar-lrn-within",
        "early-bias-1",
        "early-fitted",
    }


def test_a_difference_in_the_setup_is_one_in_the_net_or_its_training():
    """What the pairs differ in has to arrive: at the net's parameters, its outputs, its batches or its updates."""
    x = minigrad.Tensor(np.random.default_rng(0).standard_normal((2, 3, ALEXNET.crop, ALEXNET.crop)).astype("f"))

    def answers(setup):
        minigrad.manual_seed(0)
        net = build(setup, 5, ["cpu:0"])
        return {name: p.shape for name, p in net.named_parameters()}, net.eval()(x).numpy()

    shapes, base = answers(ALEXNET)
    for changed in ({"pool": (2, 2)}, {"norm": "none"}, {"norm": BEFORE_RELU}, {"norm": A_FIFTH}):
        same, other = answers(replace(ALEXNET, **changed))
        assert same == shapes and not np.allclose(other, base)
    for changed in ({"plan": "half"}, {"plan": "two columns, apart"}, {"plan": "one column"}, {"without": "conv4"}):
        assert answers(replace(ALEXNET, **changed))[0] != shapes
    minigrad.manual_seed(0)
    for setup, p in ((ALEXNET, 0.5), (replace(ALEXNET, dropout=0.0), 0.0)):
        assert [column.p for column in build(setup, 5, ["cpu:0"]).columns] == [p]


def test_the_narrow_net_has_the_papers_plan():
    net = build(ALEXNET, 40, ["cpu:0"])
    assert [net.preset.side(size) for size in (ALEXNET.crop,)] == [2]
    for pool in ((3, 2), (2, 2)):  # maps of the same sizes: the pair differs in the pools alone
        other = build(replace(ALEXNET, pool=pool), 40, ["cpu:0"])
        assert {name: p.shape for name, p in other.named_parameters()} == {
            name: p.shape for name, p in net.named_parameters()
        }
    two = build(ALEXNET, 40, ["cpu:0", "cpu:1"])  # the same net: grouped, and on a device a column
    two.load_state_dict(net.state_dict())
    x = minigrad.Tensor(np.random.default_rng(1).standard_normal((3, 3, 48, 48)).astype("f"))
    np.testing.assert_allclose(net.eval()(x).numpy(), two.eval()(x).numpy(), rtol=1e-4, atol=1e-5)
    half, (_, widths) = build(replace(ALEXNET, plan="half"), 40, ["cpu:0"]), PLANS["half"]
    assert widths[:4] == NARROW[:4] and widths[4:] == tuple(2 * n for n in NARROW[4:])
    assert half.columns[0].conv4.weight.shape == (NARROW[3], NARROW[2], 3, 3)
    full = AlexNet(10, "paper", ["cpu:0"], widths=NARROW)  # alexnet.py's own sizes are as they were
    assert full.preset.side(224) == full.preset.side(227) == 6


@pytest.mark.parametrize("without", ["conv2", "conv3", "conv4", "conv5"])
def test_a_net_without_a_convolution(without):
    minigrad.manual_seed(0)
    net = build(replace(ALEXNET, without=without), 5, ["cpu:0"])
    layers = {name.split(".")[-2] for name, _ in net.named_parameters()}
    assert layers == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"} - {without}
    x = minigrad.Tensor(np.random.default_rng(0).standard_normal((2, 3, 48, 48)).astype("f"))
    assert net.eval()(x).shape == (2, 5)


def test_columns_that_do_not_talk_at_conv3():
    """A change of the second column's conv2 is seen by the first column's conv5 where they talk, and else not."""
    x = minigrad.Tensor(np.random.default_rng(0).standard_normal((1, 3, 48, 48)).astype("f"))
    for plan, talk in (("two columns", True), ("two columns, apart", False)):
        minigrad.manual_seed(0)
        net = build(replace(ALEXNET, plan=plan), 5, ["cpu:0"]).eval()
        (column,), outputs = net.columns, []
        for change in (0.0, 1.0):
            with minigrad.no_grad():
                column.conv2.bias[NARROW[1] :] = change
                outputs.append(column.conv3_to_5(column.conv1_to_2(x)).numpy())
        first, second = (
            abs(outputs[1] - outputs[0])[:, part].max()
            for part in (slice(0, NARROW[4]), slice(NARROW[4], 2 * NARROW[4]))
        )
        assert bool(first > 0) is talk and second > 0


def test_first_weights_spread_as_the_papers():
    minigrad.manual_seed(0)
    net = build(EARLY, 40, ["cpu:0"])
    for name, parameter in net.named_parameters():
        layer, kind = name.split(".")[-2:]
        w = parameter.numpy()
        if kind == "weight":
            sums = w.std() * math.sqrt(w[0].size)
            assert sums == pytest.approx(0.01 * math.sqrt(PAPER_FAN_IN[layer]), rel=0.1), layer
        else:
            assert (w == (0.1 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0)).all()


def test_first_weights_of_the_original_code():
    for first, scale in (("original", 1.0), ("fitted", 1 / 58)):
        setup = replace(FIGURE1, first=first)
        net = build(setup, 10, ["cpu:0"])
        spread = [layer.weight.numpy().std() for layer in (net.conv1, net.conv2, net.conv3, net.fc10)]
        assert (spread == pytest.approx([0.0001, 0.01, 0.01, 0.01], rel=0.1)) is (first == "original")
        assert scale_of(setup) == scale
    assert [arm.setup.lr for arm in setups.searched("original-tanh")] == list(RATES["original"])
    assert {arm.setup.first for arm in setups.searched("original-tanh")} == {"original"}


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return coloured_classes(tmp_path_factory.mktemp("claims") / "set", 6, 2, size=lambda i: (64, 64))


def options_of(pictures, folder, *more):
    return claims.parse(["run", "lrn", "--data", str(pictures), "--out", str(folder), *more])


SMALL = Arm(
    "small", replace(ALEXNET, per_class=6, epochs=3, batch_size=6, tests=2), ("colour", "neighbours", "first losses")
)


def without_times(result):
    """A result without what depends on the machine's speed."""
    points = [{name: value for name, value in point.items() if name != "seconds"} for point in result["curve"]]
    return {**{k: v for k, v in result.items() if k not in ("seconds", "images_per_s", "date")}, "curve": points}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_run_that_was_stopped_has_the_curve_of_one_that_was_not(schedule, pictures, tmp_path, monkeypatch, capsys):
    arm = replace(SMALL, setup=replace(SMALL.setup, schedule=schedule))
    whole = runs_module.train(arm, 0, options_of(pictures, tmp_path / "a"), Library(), tmp_path / "results-a")
    options, steps = options_of(pictures, tmp_path / "b"), 0
    after_step = runs_module.Course.after_step

    def stop(course, step):
        nonlocal steps
        after_step(course, step)
        steps = step
        if step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs_module.Course, "after_step", stop)
        with pytest.raises(KeyboardInterrupt):
            runs_module.train(arm, 0, options, Library(), tmp_path / "results-b")
    assert steps == 5 and not (tmp_path / "results-b").exists()
    gone_on = runs_module.train(arm, 0, options, Library(), tmp_path / "results-b")
    assert "going on after step 5 of 9" in capsys.readouterr().out
    assert without_times(gone_on) == without_times(whole)
    assert [point["epoch"] for point in whole["curve"]] == [1, 2, 3]
    assert ["val_error" in point for point in whole["curve"]] == [False, True, True]
    assert len(whole["measured"]["first losses"]) == 9 and whole["setup"] == as_json(arm.setup)
    assert len(whole["measured"]["colour"]["added"]) == 2 * NARROW[0]


def test_a_run_that_is_done_is_not_done_again(pictures, tmp_path, monkeypatch, capsys):
    options = options_of(pictures, tmp_path)
    first = runs_module.train(SMALL, 0, options, Library(), tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "train_epoch", None)  # it is not called
        options.data = None  # nor are the pictures needed
        again = runs_module.train(SMALL, 0, options, Library(), tmp_path / "results")
    assert again == json.loads((tmp_path / "results" / "small-seed0.json").read_text()) and again["curve"]
    assert again["curve"] == first["curve"] and "done before" in capsys.readouterr().out
    other = replace(SMALL, setup=replace(SMALL.setup, lr=0.5))
    with pytest.raises(ArgumentError, match="of another setup"):
        runs_module.train(other, 0, options, Library(), tmp_path / "results")
    options.data = pictures
    with pytest.raises(ArgumentError, match="holds a run of another setup"):
        runs_module.train(other, 0, options, Library(), tmp_path / "others")
    (tmp_path / "results" / "small-seed0.json").write_text("{")
    with pytest.raises(minigrad.errors.DataError, match="cannot be read"):
        runs_module.train(SMALL, 0, options, Library(), tmp_path / "results")


def test_seeds_differ_and_pairs_have_the_same_order(pictures, tmp_path):
    library = Library()
    setup = SMALL.setup
    order = [
        [batch.indices.tolist() for batch in train_loader(library.pictures(pictures, s), s, seed, 0).epoch(0)]
        for s, seed in ((setup, 0), (replace(setup, dropout=0.0, views="centre"), 0), (setup, 1))
    ]
    assert order[0] == order[1] != order[2]


def test_the_seed_of_a_run_is_that_of_its_weights_and_of_its_order(pictures, tmp_path, monkeypatch):
    kernels, seeds = [], []

    def recorded(*arguments):
        net = build(*arguments)
        kernels.append(net.kernels())
        return net

    def stop(pictures, setup, seed, workers):
        seeds.append(seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "build", recorded)
    monkeypatch.setattr(runs_module, "train_loader", stop)
    for seed in (1, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            runs_module.train(SMALL, seed, options_of(pictures, tmp_path), Library(), tmp_path / "results")
    assert seeds == [1, 1, 2]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])


def test_some_of_the_classes(pictures):
    few = Library().pictures(pictures, replace(SMALL.setup, classes=2))
    assert few.train.classes == few.held_out.classes == ("ape", "bee") and few.classes == 2
    assert few.train.labels.tolist() == [0] * 6 + [1] * 6
    every = ImageArray(np.arange(8, dtype=np.uint8)[:, None, None], np.arange(8) % 4, "abcd")
    half = some_classes(every, 2)
    assert half.classes == ("a", "c") and half.labels.tolist() == [0, 1, 0, 1]
    assert [int(half.image(i)[0, 0, 0]) for i in range(4)] == [0, 2, 4, 6]
    assert some_classes(every, 4) is every


def test_views(pictures):
    """Crops and flips differ from epoch to epoch, centres do not; colour noise comes on top of either."""
    library, setup = Library(), replace(SMALL.setup, batch_size=18)
    set_of = library.pictures(pictures, setup)

    def images(**changed):
        loader = train_loader(set_of, replace(setup, **changed), 0, 0)
        found = []
        for epoch in (0, 1):
            (batch,) = loader.epoch(epoch)
            found.append(batch.images[np.argsort(batch.indices)])
        return found

    first, second = images(views="centre", colour_noise=0.0)
    assert np.array_equal(first, second) and first.shape == (18, 3, 48, 48)
    for changed in ({}, {"views": "centre"}, {"colour_noise": 0.0}):
        a, b = images(**changed)
        assert not np.array_equal(a, b)
    noisy = images(views="centre")[0] - first
    np.testing.assert_allclose(noisy, np.broadcast_to(noisy[..., :1, :1], noisy.shape), atol=1e-5)  # one colour each
    assert abs(noisy).max() > 0.01


def test_the_end_of_figure_1_is_where_the_error_is(pictures, tmp_path):
    setup = replace(FIGURE1, per_class=6, test_per_class=2, batch_size=6, epochs=6, stop_at=1.0)
    result = runs_module.train(Arm("short", setup), 0, options_of(pictures, tmp_path), Library(), tmp_path / "results")
    assert [point["epoch"] for point in result["curve"]] == [1]


def test_quick(pictures, tmp_path, monkeypatch, capsys):
    """Every claim's runs go through in seconds, beside the results that count, and say what they prove."""
    monkeypatch.setitem(setups.RATES, "fitted", (0.01,))
    code = claims.main(["run", "relu", "--quick", "--data", str(pictures), "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0 and out.count("it proves nothing") == 2 and "no verdict" in out
    names = {path.name for path in (tmp_path / "claims-quick").glob("*.json")}
    assert names == {
        "search-relu-0.01-seed0.json", "search-tanh-0.01-seed0.json",
        "figure1-relu-seed0.json", "figure1-tanh-seed0.json",
    }  # fmt: skip
    assert quick(ARMS["alexnet"]).setup.per_class == 2
    with pytest.raises(SystemExit):
        claims.parse(["run", "everything"])


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    claim = CLAIMS["relu"]
    assert arms(claim, tmp_path) == [] and fastest("relu", tmp_path) is None
    losses = {"relu": (2.0, 1.5, 1.7, None), "tanh": (1.9, 1.8, 1.7, 1.75)}
    for arm in searches(claim):
        activation = arm.setup.activation
        loss = losses[activation][RATES["fitted"].index(arm.setup.lr)]
        ends = {"curve": [], "diverged": "nan"} if loss is None else {"curve": [{"train_loss": loss}]}
        text = json.dumps({"format": 1, "setup": as_json(arm.setup), "quick": False, **ends})
        (tmp_path / f"{arm.name}-seed0.json").write_text(text)
    assert fastest("relu", tmp_path) == 0.01 and fastest("tanh", tmp_path) == 0.03
    assert [arm.setup.lr for arm in arms(claim, tmp_path)] == [0.01, 0.03]
    path = tmp_path / "search-relu-0.03-seed0.json"
    path.write_text(path.read_text().replace('"batch_size": 128', '"batch_size": 64'))  # of another search
    assert fastest("relu", tmp_path) is None


# ---------------------------------------------------------------- numbers


def test_intervals_by_hand():
    """1, 2, 4.5: mean 2.5, deviations -1.5, -0.5, 2, their squares' sum 6.5, variance 3.25, error sqrt(3.25 / 3)."""
    mean, half = interval([1.0, 2.0, 4.5])
    assert mean == 2.5 and half == pytest.approx(4.302653 * math.sqrt(3.25 / 3), rel=1e-3)
    mean, half = interval([0.0, 1.0])
    assert mean == 0.5 and half == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert math.isnan(interval([3.0])[1])


@pytest.mark.parametrize(
    ("values", "null", "paper", "word", "opposite"),
    [
        ([1.0, 1.1, 1.2], 0, None, REPRODUCED, False),
        ([1.0, 1.1, 1.2], 0, 2.1, REPRODUCED, False),  # half of it and a little
        ([1.0, 1.1, 1.2], 0, 2.3, WEAKER, False),
        ([0.1, 1.0, 3.0], 0, None, WEAKER, False),  # the interval reaches 0, every seed is above
        ([-0.1, 1.0, 3.0], 0, None, NOT_SEEN, False),
        ([-1.0, -1.1, -1.2], 0, 1.0, NOT_SEEN, True),
        ([3.6, 3.5, 3.7], 1, 6.0, REPRODUCED, False),  # 2.6 of 5 above 1
        ([3.4, 3.3, 3.5], 1, 6.0, WEAKER, False),
        ([0.9, 1.1, 1.0], 1, 6.0, NOT_SEEN, False),
        ([5.0, 5.1], 0, None, NONE, False),
        ([], 0, None, NONE, False),
    ],
)  # fmt: skip
def test_verdicts(values, null, paper, word, opposite):
    verdict = judge(values, null, paper)
    assert (verdict.word, verdict.opposite) == (word, opposite)


def made_up(curve=(), classes=40, **measured):
    return {"curve": list(curve), "measured": measured, "data": {"classes": classes}}


def test_measures_of_curves_by_hand():
    dropout = made_up(
        {"epoch": e, "seen_loss": s, "seen_error": 0.5, "val_error": v} for e, s, v in ((2, 3.0, 0.9), (4, 2.0, 0.7))
    )
    none = made_up(
        {"epoch": e, "seen_loss": s, "seen_error": 0.2, "val_error": v} for e, s, v in ((1, 2.5, 0.8), (2, 1.5, 0.76))
    )
    # both reach 2.0: with dropout after 4 epochs, at 0.7; without after 1.5, at 0.78
    assert m.more_error_at_equal_loss(dropout, none) == pytest.approx(8.0)
    assert m.longer_to_equal_loss(dropout, none) == pytest.approx(4 / 1.5)
    assert m.more_overfitting(dropout, none) == pytest.approx(100 * (0.56 - 0.2))
    assert m.more_error("val_error")(dropout, none) == pytest.approx(6.0)


def test_measures_of_figure_1_by_hand():
    def run(*errors):
        return made_up({"epoch": e + 1, "seconds": 10.0 * (e + 1), "train_error": x} for e, x in enumerate(errors))

    relu, tanh = run(0.4, 0.2), run(0.5, 0.4, 0.3, 0.24)
    # 0.25 lies at three quarters between the middles of epochs 1 and 2, and at 5/6 between those of 3 and 4
    assert m.until(relu, 0.25, "epochs") == pytest.approx(1.25)
    assert m.times_as_long("epochs")(relu, tanh) == pytest.approx((2.5 + 5 / 6) / 1.25)
    assert m.times_as_long("seconds")(relu, tanh) == pytest.approx((25 + 50 / 6) / 12.5)
    never = m.times_as_long("epochs")(relu, run(0.5, 0.4, 0.3))
    assert isinstance(never, m.AtLeast) and never == pytest.approx(3 / 1.25)
    assert judge([never] * 3, 1.0).bound == "at least " and judge([2.0] * 3, 1.0).bound == ""
    turned = m.times_as_long("epochs")(run(0.5, 0.4, 0.3), relu)  # it is no reason to forget the seed
    assert isinstance(turned, m.AtMost) and turned == pytest.approx(1.25 / 3)
    assert m.times_as_long("epochs")(run(0.5), run(0.4)) is None


def test_measure_of_the_first_steps_by_hand():
    guessing = math.log(40)
    flat, falls = [guessing] * 100, [guessing] * 30 + [guessing - 1] * 70
    assert m.steps_until_it_leaves(made_up(**{"first losses": flat})) is None
    # of 20 losses k must be lower by 1 so that k / 20 >= 0.05 ln 40 = 0.1844: four of them
    assert m.steps_until_it_leaves(made_up(**{"first losses": falls})) == 34
    one, other = made_up(**{"first losses": falls}), made_up(**{"first losses": flat})
    never = m.times_as_many_steps(one, other)
    assert isinstance(never, m.AtLeast) and never == pytest.approx(100 / 34)
    turned = m.times_as_many_steps(other, one)
    assert isinstance(turned, m.AtMost) and turned == pytest.approx(34 / 100)


def test_measures_of_colour_by_hand():
    def run(*shares):
        return made_up(colour={"added": shares})

    assert m.apart([0.2, 0.4, 0.7, 0.9]) == pytest.approx(50.0)
    assert m.further_apart(run(0.2, 0.4, 0.7, 0.9), run(0.5, 0.6, 0.5, 0.5)) == pytest.approx(45.0)
    # the three ways to halve 0, 0, 1, 1 give 100, 0 and 0 points, each as likely
    assert m.apart_against_chance(run(0, 0, 1, 1), made_up()) == pytest.approx(3.0, rel=0.1)


def test_nearest_against_all_distances():
    random = np.random.default_rng(0)
    here, there = random.integers(0, 9, (7, 5)).astype(np.uint8), random.integers(0, 9, (50, 5)).astype(np.uint8)
    found = exams.nearest(here, there)
    for row, near in zip(here, found):
        distances = ((there.astype(float) - row) ** 2).sum(1)
        assert distances[near].tolist() == np.sort(distances)[:6].tolist()


# ---------------------------------------------------------------- the command and its page


def put(folder, arm, seed, curve, **measured):
    """A result as a run leaves it, with a made-up curve."""
    result = {
        "format": 1, "arm": arm.name, "seed": seed, "setup": as_json(arm.setup), "quick": False, "curve": curve,
        "measured": measured, "parameters": 1000, "seconds": 60.0, "images_per_s": 100.0, "devices": ["cpu:0"],
        "machine": "a machine", "data": {"name": arm.setup.data, "classes": 40},
    }  # fmt: skip
    (folder / f"{arm.name}-seed{seed}.json").write_text(json.dumps(result))


def ends(seen, val):
    return [{"epoch": e, "seconds": 9.0 * e, "seen_loss": 1.0 / e, "seen_error": seen, "val_error": val,
             "val_error5": val / 2, "train_error": seen, "train_loss": 1.0} for e in (7, 14)]  # fmt: skip


def test_list_names_every_row(tmp_path, capsys):
    put(tmp_path, ARMS["alexnet"], 0, ends(0.5, 0.6))
    assert claims.main(["list", "--results", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == [*CLAIMS, DEVICES]
    assert "0 to 1 seeds" in rows["dropout"] and "nothing done" in rows["biases"]
    assert {claim.section for claim in CLAIMS.values()} >= {
        "3.1, Figure 1", "3.2, 3.5", "3.3", "3.4", "4.1", "4.2", "5", "1, 7", "6.1, Figure 3", "6, Figure 4",
    }  # fmt: skip


def test_the_page_of_made_up_curves(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for seed, more in enumerate((0.010, 0.020, 0.045)):
        put(tmp_path, ARMS["alexnet"], seed, ends(0.5, 0.6))
        put(tmp_path, ARMS["alexnet-no-lrn"], seed, ends(0.5, 0.6 + more))
        put(tmp_path, ARMS["alexnet-no-decay"], seed, ends(0.52 + more / 100, 0.6))
        put(tmp_path, ARMS["alexnet-pool-2-2"], seed, ends(0.5, 0.6 - more))
    put(tmp_path, ARMS["alexnet-half"], 0, ends(0.5, 0.7))
    put(tmp_path, Arm("alexnet-apart", replace(ALEXNET, lr=1.0)), 0, ends(0.5, 0.7))  # of another setup
    page = tmp_path / "docs" / "claims.md"
    assert claims.main(["table", "--results", str(tmp_path), "--page", str(page)]) == 0
    assert "alexnet-apart-seed0.json does not count" in capsys.readouterr().out
    text = page.read_text()
    half = 4.303 * math.sqrt(3.25 / 3)
    lines = [line for line in text.splitlines() if line.startswith("| ")]

    def line(start):
        return next(line for line in lines if line.startswith(start))

    row = line("| held-out error, without - with LRN |")
    assert f"+1.0, +2.0, +4.5 | +2.5 ± {half:.1f} points | 0 | **weaker**" in row
    assert "| +2.0 ± 0.0 points | 0 | **reproduced**" in line("| training error, decay 0 - 0.0005 |")
    assert "**not seen at this scale**" in line("| held-out error, 2/2 - 3/2 |")
    assert "no verdict: 1 of 3 seeds" in line("| held-out error, half the net - two columns |")
    assert "not run" in line("| held-out error, columns that do not talk at conv3 - two columns |")
    assert "Not run, because it takes two processor cores" in text
    assert "- 13 runs are there, 13 minutes of training: on cpu:0 of a machine." in text
    for claim in CLAIMS.values():
        assert f"\n## {claim.name}\n" in text and f"](#{claim.name})" in text
    pictures = {path.name for path in (page.parent / "images").iterdir()}
    assert pictures == {
        "claims_lrn.svg", "claims_weight_decay.svg", "claims_overlapping_pooling.svg", "claims_two_columns.svg",
    }  # fmt: skip
    before = (page.parent / "images" / "claims_lrn.svg").read_bytes()
    write_page(page, Found(tmp_path))
    assert page.read_text() == text and (page.parent / "images" / "claims_lrn.svg").read_bytes() == before


def test_results_of_other_pictures_are_no_pair(tmp_path):
    put(tmp_path, ARMS["alexnet"], 0, ends(0.5, 0.6))
    put(tmp_path, ARMS["alexnet-half"], 0, ends(0.5, 0.7))
    assert Found(tmp_path).seeds("alexnet", "alexnet-half") == [0]
    path = tmp_path / "alexnet-half-seed0.json"
    path.write_text(path.read_text().replace('"classes": 40', '"classes": 39'))
    assert Found(tmp_path).seeds("alexnet", "alexnet-half") == []
    assert (
        word_of(judge([])) == "not run"
        and word_of(judge([]), run=True) == "no verdict: neither run of a pair came that far"
    )


def test_the_time_of_devices(tmp_path, capsys):
    assert claims.main(["run", DEVICES, "--devices", "cpu:0", "--quick", "--out", str(tmp_path)]) == 2
    assert "give two of them" in capsys.readouterr().err
    found = {"seconds_of_a_step": {"one": [2.0, 3.0, 2.4], "two": [1.0, 2.0, 2.0]}}
    assert timing.factors(found) == [2.0, 1.5, 1.2]
    assert timing.median(found, "one") == 2.4


def test_committed_results_are_those_of_the_setups():
    found = Found(claims.RESULTS)
    for claim in CLAIMS.values():
        for comparison in claim.comparisons:
            found.values(comparison)
    assert found.left_out == []
