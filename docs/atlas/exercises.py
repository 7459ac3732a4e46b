"""Exercises of one kind: a line is broken; which test turns red?

tests/test_atlas.py does every one of them in a copy of the repository (pytest -m slow tests/test_atlas.py), so that the
answers are what happens, and looks that each line is still there.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from .listing import ROOT, code, source_link


@dataclass(frozen=True)
class Exercise:
    """Replace `line` of `file` by `broken`, run `tests`: those named in `red` fail, and `green` stay green.

    question, why: HTML.  red, green: names of test functions.
    """

    file: str
    line: str
    broken: str
    tests: str
    red: tuple[str, ...]
    why: str
    green: tuple[str, ...] = ()
    question: str = ""
    device: str = ""  # under test, where it is not cpu:0

    @property
    def command(self) -> str:
        device = f"MINIGRAD_TEST_DEVICE={self.device} " if self.device else ""
        return f"{device}python -m pytest {self.tests}"

    @property
    def number(self) -> int:
        """Of the line, from 1; ValueError where it is not there, or not once."""
        found = [n for n, text in enumerate((ROOT / self.file).read_text(encoding="utf-8").splitlines(), 1)
                 if self.line in text]  # fmt: skip
        if len(found) != 1:
            raise ValueError(f"{self.file} has the line {self.line!r} {len(found)} times, the exercise needs it once")
        return found[0]

    def text(self) -> str:
        """The file, broken."""
        assert self.number
        return (ROOT / self.file).read_text(encoding="utf-8").replace(self.line, self.broken)


def read(text: str) -> Exercise:
    """An exercise of a Markdown file: lines "name: value", and the line with - before it, the broken one with +."""
    found: dict[str, str] = {}
    name = ""
    for line in text.strip("\n").splitlines():
        if line[:1] in "-+":
            found["line" if line[0] == "-" else "broken"] = line[1:]
        elif line.startswith(" "):
            found[name] += " " + line.strip()
        else:
            name, _, value = line.partition(": ")
            found[name] = value
    red, green = (tuple(found.pop(name, "").split()) for name in ("red", "green"))
    return Exercise(**found, red=red, green=green)


def section(exercises: list[Exercise]) -> str:
    """The body of a page's section."""
    parts = ["<p>Break one line, guess, then run the test file. The answers were found by doing it.</p>"]
    return "".join([*parts, *(shown(exercise, f"{number}. ") for number, exercise in enumerate(exercises, 1))])


def shown(exercise: Exercise, number: str = "") -> str:
    """One exercise, the answer folded away."""
    before, after = exercise.line.strip(), exercise.broken.strip()
    where = source_link(exercise.file, f"{exercise.file}, line {exercise.number}", exercise.number)
    answers = ", ".join(_test_link(exercise.tests, name) for name in exercise.red)
    stays = ""
    if exercise.green:
        stays = f" Green all the same: {', '.join(_test_link(exercise.tests, name) for name in exercise.green)}."
    return (
        f"<h3>{number}{exercise.question or 'What notices this?'}</h3><p>In {where}:</p>"
        f'<pre class="code" tabindex="0"><code><del>- {html.escape(before)}</del>\n'
        f"<ins>+ {html.escape(after)}</ins></code></pre>{code(exercise.command, 'bash', {})}"
        f"<details><summary>The answer</summary><p>Red: {answers}.{stays}</p><p>{exercise.why}</p></details>"
    )


def _test_link(file: str, name: str) -> str:
    for number, text in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith(f"def {name}("):
            return source_link(file, f"<code>{name}</code>", number)
    raise LookupError(f"{file} has no test {name}")
