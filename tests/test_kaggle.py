"""ILSVRC2012 in Kaggle's form: the same pictures, labels and words as the official files; and what is refused."""

import os
import shutil

import made_ilsvrc as made
import pytest
from made_ilsvrc import COLOURS, WNIDS, WORDS

from minigrad.data import ImageFolder, find_source, open_images
from minigrad.errors import DataError

INSIDE = "ILSVRC/Data/CLS-LOC"


def solution(wnids):
    """LOC_val_solution.csv, not sorted, as it comes; most pictures have several boxes."""
    rows = [f"ILSVRC2012_val_{k + 1:08d}," + f"{wnid} 7 8 90 99 " * (1 + k % 3) for k, wnid in enumerate(wnids)]
    return "\n".join(["ImageId,PredictionString", *rows[::-1], ""])


@pytest.fixture
def top(tmp_path):
    """What Kaggle's archive unpacks to, and the lists beside it."""
    top = tmp_path / "kaggle"
    for wnid, pictures in made.training_pictures(2, odd=False).items():
        folder = top / INSIDE / "train" / wnid
        folder.mkdir(parents=True)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
    val = made.validation_pictures()
    for split, count in ("val", len(val)), ("test", 3):
        (top / INSIDE / split).mkdir()
        for k in range(count):
            name = made.val_name(k + 1) if split == "val" else f"ILSVRC2012_test_{k + 1:08d}.JPEG"
            (top / INSIDE / split / name).write_bytes(val[k][1])
    (top / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {words}\n" for wnid, words in WORDS.items()))
    (top / "LOC_val_solution.csv").write_text(solution([wnid for wnid, _ in val]))
    return top


def check(root):
    """find_source and open_images have the classes, words and labels that the pictures show."""
    source = find_source(root)
    assert source.classes == WNIDS and source.words == WORDS and not source.missing
    for split, count in ("train", 10), ("val", 10):
        images = open_images(root, split, size=16)
        assert len(images) == len(source.split(split)) == count
        assert images.classes == WNIDS and images.words == WORDS
        for i, label in enumerate(images.labels.tolist()):
            assert abs(images.image(i).mean((0, 1)) - COLOURS[WNIDS[label]]).max() < 25, images.paths[i]
    return source


def test_the_folder_that_was_unpacked_to_and_the_one_of_the_pictures(top, monkeypatch):
    source = check(top)
    assert source.kind == "ILSVRC2012"
    assert source.split("val").name(9) == f"val/{made.val_name(10)}"  # as of the official files: their store fits
    assert source.split("train").name(0) == f"train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG"
    check(top / INSIDE)
    monkeypatch.chdir(top / INSIDE)
    check(".")
    for between in "ILSVRC", "ILSVRC/Data":
        with pytest.raises(DataError, match="but '.*CLS-LOC' has the pictures of a dataset: give that folder"):
            find_source(top / between)


def test_pictures_of_val_that_were_sorted_into_class_folders(top):
    """As people do it; the solution is not needed then, and the words are found still."""
    val = top / INSIDE / "val"
    for k, (wnid, _) in enumerate(made.validation_pictures()):
        (val / wnid).mkdir(exist_ok=True)
        (val / made.val_name(k + 1)).rename(val / wnid / made.val_name(k + 1))
    check(top), check(top / INSIDE)
    (top / "LOC_val_solution.csv").unlink()
    check(top), check(top / INSIDE)
    assert ImageFolder(top / INSIDE, "val").words == WORDS


def test_without_words_the_classes_are_those_of_the_solution(top):
    (top / "LOC_synset_mapping.txt").unlink()
    source = find_source(top)
    assert source.classes == WNIDS and source.words == {}
    assert [WNIDS[k] for k in source.split("val").labels] == [wnid for wnid, _ in made.validation_pictures()]


def test_a_development_kit_comes_first(top):
    pytest.importorskip("scipy", reason="meta.mat is read by it")
    (top / "LOC_val_solution.csv").write_text("nothing")
    kit = top / INSIDE / "ILSVRC2012_devkit_t12"
    truth = [made.IDS[wnid] for wnid, _ in made.validation_pictures()]
    for path, content in made.devkit(truth).items():
        place = kit.parent / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    check(top)


def test_what_is_missing_is_named(top):
    (top / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match="CLS-LOC' lacks ILSVRC2012_devkit_t12.tar.gz .* of Kaggle's, LOC_val_solution"):
        find_source(top)
    assert find_source(top, ["train"]).words == WORDS
    shutil.rmtree(top / INSIDE / "train" / WNIDS[1])
    (top / "LOC_val_solution.csv").write_text(solution([wnid for wnid, _ in made.validation_pictures()]))
    with pytest.raises(DataError, match=f"1 of 5 are not among the training pictures \\({WNIDS[1]}\\)"):
        find_source(top)


RIGHT = [wnid for wnid, _ in made.validation_pictures()]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"its first line must be ImageId,PredictionString"),
        ("ImageId,PredictionString\n", "lines with pictures must follow"),
        (solution(RIGHT).replace("ImageId", "Id"), "its first line must be"),
        (solution(RIGHT) + f"ILSVRC2012_val_00000001,{WNIDS[0]} 1 2 3 4\n", "a picture, once, .*_val_00000001"),
        (solution(RIGHT) + f"ILSVRC2012_val_00000011,{WNIDS[0]} 1 2 3 4 {WNIDS[1]} 1 2 3 4\n", "boxes of one class"),
        (solution(RIGHT) + f"ILSVRC2012_val_00000011,{WNIDS[0]} 1 2 3\n", "boxes of one class"),
        (solution(RIGHT) + "ILSVRC2012_val_00000011,\n", "boxes of one class"),
        (solution(RIGHT) + "ILSVRC2012_val_00000011\n", "boxes of one class"),
        (solution(RIGHT) + f"../val_00000011,{WNIDS[0]} 1 2 3 4\n", "a line must be a picture"),
        (solution(RIGHT) + f"ILSVRC2012_val_00000012,{WNIDS[0]} 1 2 3 4\n", "1, 2, .* it has 11 pictures"),
        (solution([*RIGHT, "n99999999"]), "1 other classes .n99999999"),
        (solution([*RIGHT, WNIDS[0]]), r"labels for, it holds 10: 1 are not there \(numbers 11\)"),
        (solution(RIGHT[:-1]), r"1 have no label \(numbers 10\)"),
        ('ImageId,PredictionString\n"' + "x" * 200_000, "cannot be read: .*field larger"),
        (b"\xff\xfe\0", "cannot be read"),
    ],
)  # fmt: skip
def test_a_solution_that_cannot_be_right_is_refused(top, text, message):
    (top / "LOC_val_solution.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as error:
        find_source(top)
    assert "LOC_val_solution.csv" in str(error.value) and str(error.value).isprintable()


def test_a_solution_that_is_no_file_is_none(top):
    os.rename(top / "LOC_val_solution.csv", top / "x")
    os.mkfifo(top / "LOC_val_solution.csv")
    with pytest.raises(DataError, match="lacks"):
        find_source(top)
