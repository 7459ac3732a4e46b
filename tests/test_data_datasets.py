"""Datasets of any kind, the order in which they are taken, and batches made of their items."""

import contextlib
import io
import pickle
import re
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor
from minigrad.data import (
    ArrayDataset,
    ImageArray,
    Subset,
    WeightedRandomSampler,
    class_balanced,
    default_collate,
    random_split,
    sampling,
)
from minigrad.errors import ArgumentError, DataError

# ---------------------------------------------------------------- arrays


def test_array_dataset_gives_rows_side_by_side():
    x, y = np.arange(12.0).reshape(4, 3), ["a", "b", "c", "d"]
    data = ArrayDataset(x, y, Tensor([0, 1, 2, 3]))
    assert len(data) == 4
    row, name, number = data[2]
    assert row.tolist() == [6, 7, 8] and name == "c" and number == 2
    assert np.shares_memory(row, x)
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1
    x[2, 0] = 60  # the array itself is its owner's
    assert data[2][0][0] == 60
    assert [len(item) for item in ArrayDataset(x)] == [1] * 4  # Python's iteration, to the IndexError


@pytest.mark.parametrize(
    "arrays, message",
    [
        ((), "equal length along their first axis, got none"),
        ((np.zeros((3, 2)), np.zeros(4)), r"got shapes \(3, 2\), \(4,\)"),
        ((np.float64(1), np.zeros(1)), r"got shapes \(\), \(1,\)"),
        (([[1, 2], [3]],), "give items of differing length as a list to Loader"),
        ((np.array([[1], None], object),), r"got an array of object \(2,\)"),
    ],
)
def test_array_dataset_refuses(arrays, message):
    with pytest.raises(DataError, match=f"ArrayDataset: .*{message}"):
        ArrayDataset(*arrays)


# ---------------------------------------------------------------- parts


def test_a_subset_takes_items_in_its_own_order():
    part = Subset(["a", "b", "c", "d"], [3, 0, 3])
    assert len(part) == 3 and list(part) == ["d", "a", "d"] and part[-3] == "d"
    assert list(Subset(part, np.array([1, 2], np.uint8))) == ["a", "d"]
    assert list(Subset("ab", [])) == [] and not hasattr(part, "image")
    assert list(pickle.loads(pickle.dumps(part))) == ["d", "a", "d"]


def test_a_subset_of_images_is_of_images():
    whole = ImageArray(np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3), [1, 0, 1, 2], ["x", "y", "z"])
    whole.paths, whole.words, whole.folder = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"], {"x": "ex"}, "somewhere"
    part = Subset(Subset(whole, [3, 2, 1]), [2, 0])
    assert np.array_equal(part.image(0), whole.images[1]) and np.array_equal(part.image(1), whole.images[3])
    assert part.labels.tolist() == [0, 2] and list(part.paths) == ["1.jpg", "3.jpg"]
    assert part.classes == ("x", "y", "z") and part.words == {"x": "ex"} and part.folder == "somewhere"
    assert not hasattr(Subset(ImageArray(whole.images, whole.labels), [0]), "paths")


@pytest.mark.parametrize(
    "indices, message",
    [
        ([0, 4], r"in 0\.\.3, as there are 4 items, got 4"),
        ([-1], "got -1"),
        ([0.0], r"integers \(K,\), got float64 \(1,\)"),
        ([[0]], r"got int64 \(1, 1\)"),
        ([True, False, True, False], r"got bool \(4,\)"),
        (2, r"got int64 \(\)"),
    ],
)
def test_a_subset_refuses_other_indices(indices, message):
    with pytest.raises(DataError, match=f"Subset: indices must be .*{message}"):
        Subset("abcd", indices)


@given(st.integers(1, 60), st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 3))
def test_a_random_split_shares_nothing_and_loses_nothing(n, lengths, seed):
    lengths.append(max(n - sum(lengths), 0))
    n = sum(lengths)
    if n == 0:
        return
    parts = random_split(range(n), lengths, seed)
    assert [len(part) for part in parts] == lengths
    assert sorted(item for part in parts for item in part) == list(range(n))
    assert [list(part) for part in random_split(range(n), lengths, seed)] == [list(part) for part in parts]


@pytest.mark.parametrize(
    "n, fractions, lengths",
    [
        (100, (0.71, 0.29), [71, 29]),  # 0.29 * 100 is 28.999999999999996
        (10, (1 / 3, 1 / 3, 1 / 3), [4, 3, 3]),
        (11, (0.5, 0.25, 0.25), [6, 3, 2]),
        (7, (1.0,), [7]),
        (1, (1,), [1]),
        (5, (0, 1), [0, 5]),
        (3, (0, 0.5, 0.5), [0, 2, 1]),  # what is left over is for parts that are to have some
    ],
)
def test_fractions_are_rounded_down_and_the_rest_dealt_out(n, fractions, lengths):
    assert [len(part) for part in random_split(range(n), fractions)] == lengths


def test_a_random_split_is_random():
    (one, _), (again, _), (other, _) = (random_split(range(100), (0.5, 0.5), seed) for seed in (1, 1, 2))
    assert list(one) == list(again) != list(other)
    assert 15 < sum(item >= 50 for item in one) < 35  # 25 expected, standard deviation 2.5


@pytest.mark.parametrize(
    "lengths", [(), (5, 4), (0.5, 0.4), (11, -1), (0.5, 0.6), ("10",), (5.5, 4.5), (True,), (np.nan, 1)]
)
def test_random_split_refuses_other_lengths(lengths):
    with pytest.raises(ArgumentError, match="random_split: lengths must be integers >= 0 whose sum is 10"):
        random_split(range(10), lengths)


def test_random_split_refuses_a_fraction_without_an_item():
    with pytest.raises(ArgumentError, match=r"of 3 items, parts \[1, 2\] of the fractions .* would get none"):
        random_split(range(3), (0.8, 0.19, 0.01))
    with pytest.raises(ArgumentError, match="seed must be an integer >= 0"):
        random_split(range(3), (1,), -1)


# ---------------------------------------------------------------- order


def test_weights_decide_how_often():
    sampler = WeightedRandomSampler([1, 0, 3, 6], num_samples=6000)
    order = sampler(0, 0)
    assert len(sampler) == len(order) == 6000
    counts = np.bincount(order, minlength=4)
    assert counts[1] == 0
    assert np.all(np.abs(counts - [600, 0, 1800, 3600]) <= [120, 0, 180, 200])  # five standard deviations
    assert np.array_equal(order, sampler(0, 0))
    assert not np.array_equal(order, sampler(0, 1)) and not np.array_equal(order, sampler(1, 0))


def test_no_two_purposes_share_their_random_numbers():
    """SeedSequence takes [1, 0] for [1, 0, 0]: only the first word keeps shuffles, draws and items apart."""
    words = sampling.SHUFFLE, sampling.AUGMENT, sampling.WEIGHTED, sampling.SPLIT
    numbers = {float(sampling.generator(word, 0, 0, *item).random()) for word in words for item in ((), (1,), (1, 2))}
    assert len(numbers) == 12


def test_without_replacement_each_comes_once_and_heavy_ones_first():
    sampler = WeightedRandomSampler([1, 0, 100, 1, 1], num_samples=4, replacement=False)
    orders = np.array([sampler(0, epoch) for epoch in range(200)])
    assert all(sorted(order) == [0, 2, 3, 4] for order in orders.tolist())
    assert (orders[:, 0] == 2).sum() > 180


def test_class_balanced_draws_classes_equally_often():
    labels = np.array(["cat"] * 900 + ["dog"] * 90 + ["emu"] * 10)
    sampler = class_balanced(labels, num_samples=3000)
    names, counts = np.unique(labels[sampler(3, 1)], return_counts=True)
    assert names.tolist() == ["cat", "dog", "emu"] and np.all(np.abs(counts - 1000) < 130)  # five sd: 129
    assert len(class_balanced(labels)) == 1000
    assert len(np.unique(class_balanced([5, 5, 7], 50)(0, 0))) == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        (([[1.0]],), r"got float64 \(1, 1\)"),
        (([1, -1],), "with the sum|got int64"),
        (([1, np.nan],), "got float64"),
        (([0, 0],), "with the sum 0"),
        (([],), "with the sum 0"),
        (([1e308, 1e308],), "with the sum inf"),
        ((["1"],), "got <U1"),
        (([1, 1], 0), "num_samples must be an integer >= 1"),
        (([1, 1], 3, False), "3 samples cannot be drawn without replacement from 2 items"),
        (([1, 0, 1], None, False), "3 samples cannot be drawn without replacement from 2 items"),
        (([1, 1], 2, "no"), "replacement must be True or False"),
    ],
)
def test_weighted_random_sampler_refuses(settings, message):
    with pytest.raises(ArgumentError, match=f"WeightedRandomSampler: .*({message})"):
        WeightedRandomSampler(*settings)
    for labels in ([], [[1]], 3):
        with pytest.raises(ArgumentError, match="class_balanced: labels"):
            class_balanced(labels)


@given(st.lists(st.integers(0, 5), max_size=30))
def test_occurrences_count_what_came_before(order):
    expected = [order[:k].count(index) for k, index in enumerate(order)]
    assert sampling.occurrences(np.array(order, np.int64)).tolist() == expected


# ---------------------------------------------------------------- batches

Pair = namedtuple("Pair", "image label")


def test_collate_numbers_texts_and_arrays():
    for items, expected, dtype in (
        ([1, 2**62, -3], [1, 2**62, -3], np.int64),
        ([0.5, 1.0], [0.5, 1.0], np.float32),
        ([1, 0.5], [1.0, 0.5], np.float32),
        ([True, False], [True, False], np.bool_),
        ([np.uint8(3), np.uint8(4)], [3, 4], np.uint8),
        ([np.float64(0.1)], [0.1], np.float64),
        ([np.array([[1, 2]]), np.array([[3, 4]])], [[[1, 2]], [[3, 4]]], np.int64),
        ([np.zeros((0, 2))], np.zeros((1, 0, 2)).tolist(), np.float64),
    ):
        batch = default_collate(items)
        assert isinstance(batch, np.ndarray) and batch.dtype == dtype and batch.tolist() == expected
    assert default_collate(["a", "bc"]) == ["a", "bc"] and default_collate([b"a", b""]) == [b"a", b""]


def test_collate_goes_into_tuples_lists_and_dicts():
    batch = default_collate([Pair({"x": 1, "name": "a"}, (0.5, [1, 2])), Pair({"x": 2, "name": "b"}, (1.5, [3, 4]))])
    assert type(batch) is Pair and batch.image["x"].tolist() == [1, 2] and batch.image["name"] == ["a", "b"]
    assert type(batch.label) is tuple and batch.label[0].tolist() == [0.5, 1.5]
    assert type(batch.label[1]) is list and [column.tolist() for column in batch.label[1]] == [[1, 3], [2, 4]]
    proxies = [MappingProxyType({"b": 1, "a": 2}), OrderedDict(a=3, b=4)]
    assert {key: value.tolist() for key, value in default_collate(proxies).items()} == {"b": [1, 4], "a": [2, 3]}


def test_collate_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    items = [
        {
            "x": rng.normal(size=(2, 3)).astype(np.float32),
            "y": (k, f"n{k}"),
            "p": Pair(bool(k), np.float64(k)),
            "f": k / 4,
        }
        for k in range(3)
    ]
    ours, theirs = default_collate(items), torch.utils.data.default_collate(items)
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours["x"], theirs["x"].numpy()) and ours["x"].dtype == theirs["x"].numpy().dtype
    assert np.array_equal(ours["y"][0], theirs["y"][0]) and ours["y"][1] == list(theirs["y"][1])
    for name in Pair._fields:
        one, other = getattr(ours["p"], name), getattr(theirs["p"], name).numpy()
        assert np.array_equal(one, other) and one.dtype == other.dtype
    assert np.array_equal(ours["f"], theirs["f"].numpy())  # the type differs: floats are float32 here, as in a Tensor


@pytest.mark.parametrize(
    "items, message",
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"item 9 has \(2, 4\) and item 7 the shape \(2, 3\)"),
        ([np.zeros(2), np.zeros(2, np.float32)], "item 9 has float32 and item 7 the type float64"),
        ([1, "a"], "item 9 has str and item 7 int"),
        ([True, 2], "item 9 has int and item 7 bool"),
        ([np.int64(1), 2], "item 9 has int and item 7 int64"),
        ([(1, [1, 2]), (1, [1, 2, 3])], r"at \[1\] item 9 has 3 and item 7 the length 2"),
        ([{"a\n": 1}, {"b": 1}], r"item 9 has 'b' and item 7 the keys 'a\\n'"),
        ([{"a": (1, 2)}, {"a": (1, None)}], r"at \['a'\]\[1\] item 9 has NoneType and item 7 int"),
        ([Pair(1, 2), (1, 2)], "item 9 has tuple and item 7 Pair"),
        ([None, None], "item 7 is NoneType, and only numbers, arrays"),
        ([Pair(1, {2}), Pair(1, {2})], r"item 7\.label is set"),
        ([np.array([None]), np.array([None])], "item 7 is an array of object"),
        ([(1, 2**63), (1, 0)], r"item 7\[1\] is 9223372036854775808, and int64 ends"),
        ([], "need one item or more, got none"),
    ],
)
def test_collate_names_the_items_that_do_not_fit(items, message):
    with pytest.raises(DataError, match=f"^default_collate: .*{message}"):
        default_collate(items, [7, 9])


def test_collate_counts_from_0_where_it_is_told_nothing():
    with pytest.raises(DataError, match="item 2 has str and item 0 int; make them alike, or give Loader a collate"):
        default_collate([1, 2, "3"])


# ---------------------------------------------------------------- the page about it

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n[^`]*\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_of_the_page_says_what_it_prints():
    assert len(EXAMPLES) == 4 == PAGE.count("```python")


@pytest.mark.parametrize("code, printed", EXAMPLES, ids=["packed", "arrays", "text", "balanced"])
def test_examples_print_what_the_page_says(code, printed):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/data.md", "exec"), {"__name__": "example"})
    assert out.getvalue() == printed
