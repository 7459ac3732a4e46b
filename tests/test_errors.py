"""Names in messages, as a terminal may show them."""

import os
from pathlib import Path

import pytest

from minigrad.errors import printable, some


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
