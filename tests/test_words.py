"""Words for classes: read from files, shown in place of names, kept in weights."""

import json

import numpy as np
import pytest
from made_ilsvrc import WNIDS, picture
from narrow import main, narrow_net  # noqa: F401

from minigrad import checkpoint
from minigrad.data import ImageFolder
from minigrad.data.words import read_words, shown_names, words_near


def test_both_forms_are_read():
    lines = [b"n01440764 tench, Tinca tinca\r\n", b"n9 not one of ours\n", b"\n", b"n01443537\n", b"n01443537 \n",
             b"n01443537 goldfish\n", b"n01443537 again\n"]  # fmt: skip
    assert read_words(lines, WNIDS) == {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}
    tabs = [b"\xef\xbb\xbfb c\tBees,  wasps\n", b"a\t\xc3\xa4 \xff\n", b"d\n"]
    assert read_words(tabs, ["a", "b c", "d"]) == {"a": "ä \ufffd", "b c": "Bees, wasps"}


def test_words_are_looked_for_inside_and_beside(tmp_path):
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "1.jpg").write_bytes(b"")
    assert ImageFolder(root).words == {}
    (tmp_path / "words.txt").write_text("a\tbeside\n")
    assert ImageFolder(root).words == {"a": "beside"}
    (root / "words.txt").write_text("zebra\tno class of ours\n")
    assert ImageFolder(root).words == {"a": "beside"}
    (root / "words.txt").write_text("b\tinside\n")
    assert ImageFolder(root).words == {"b": "inside"}
    (root / "synset_words.txt").write_text("a first\n")
    assert ImageFolder(root).words == {"a": "first"}
    assert ImageFolder(root, classes=["b", "a", "c"]).words == {"a": "first"}


def test_a_words_file_that_cannot_be_read_costs_the_words_only(tmp_path):
    (tmp_path / "synset_words.txt").mkdir()
    (tmp_path / "words.txt").write_text("a\tape\n")
    with pytest.warns(UserWarning, match="no words are read"):
        assert words_near(["a"], tmp_path) == {"a": "ape"}


def test_no_two_classes_are_called_the_same():
    words = {"n1": "crane, bird", "n2": "crane", "n3": "tench, Tinca tinca", "n5": " , x"}
    assert shown_names(["n1", "n2", "n3", "n4", "n5"], words) == ("crane (n1)", "crane (n2)", "tench", "n4", "n5")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_program_shows_words_and_keeps_names_as_keys(tmp_path, capsys):
    words = {"n01440764": "tench, Tinca tinca", "n02012849": "crane, bird", "n03126707": "crane"}
    for split, count in (("train", 2), ("val", 1)):
        for k, wnid in enumerate(WNIDS):
            (tmp_path / "set" / split / wnid).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "set" / split / wnid / f"{i}.jpg").write_bytes(picture(wnid, k + i, side=64))
    (tmp_path / "set" / "synset_words.txt").write_text("".join(f"{wnid} {text}\n" for wnid, text in words.items()))
    code, _, err = main(
        capsys, "--data", tmp_path / "set", "--out", tmp_path, "--name", "run", "--steps", 1, "--no-figures",
        "--devices", "cpu:0", "--workers", 0, "--batch-size", 8,
    )  # fmt: skip
    assert code == 0, err
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())["ten_views"]
    assert list(scores["classes"]) == list(WNIDS)
    assert {name: of.get("words") for name, of in scores["classes"].items()} == {w: words.get(w) for w in WNIDS}
    weights = tmp_path / "run" / "weights.safetensors"
    state, facts = checkpoint.load(weights)
    assert json.loads(facts["classes"]) == list(WNIDS) and json.loads(facts["words"]) == words

    image = tmp_path / "set" / "val" / WNIDS[0] / "0.jpg"
    code, out, _ = main(capsys, "--predict", weights, image, "--devices", "cpu:0")
    assert code == 0
    for name in ("tench ", "crane (n02012849) ", "crane (n03126707) ", "n01443537 ", "n07583066 "):
        assert name in out
    code, out, _ = main(capsys, "--predict", weights, image, "--devices", "cpu:0", "--json")
    (found,) = json.loads(out)
    assert set(found["classes"]) == set(WNIDS) and np.isclose(sum(found["classes"].values()), 1)
    assert found["words"] == {name: words.get(name, "") for name in found["classes"]}
    code, out, _ = main(capsys, "--evaluate", weights, "--devices", "cpu:0", "--json", "--workers", 0)
    assert json.loads(out)[str(weights)]["one view"]["classes"]["n02012849"]["words"] == "crane, bird"

    facts.pop("words")  # as earlier versions wrote it
    checkpoint.save(weights, state, facts)
    code, out, _ = main(capsys, "--predict", weights, image, "--devices", "cpu:0")
    assert code == 0 and "n01440764 " in out and "tench" not in out
    for bad in ('["tench"]', '{"n01440764": 3}', "no JSON"):
        checkpoint.save(weights, state, {**facts, "words": bad})
        code, _, err = main(capsys, "--predict", weights, image, "--devices", "cpu:0")
        assert code == 2 and "words in its metadata must be" in err
