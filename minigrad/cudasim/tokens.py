"""A preprocessed C++ text as tokens, each with its file and line, and the pairs of its brackets."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<raw>(?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)")
    | (?P<string>(?:u8|[uUL])?"(?:\\.|[^"\\\n])*")
    | (?P<char>(?:u8|[uUL])?'(?:\\.|[^'\\\n])+')
    | (?P<word>[A-Za-z_$][\w$]*)
    | (?P<number>\.?\d(?:[eEpP][+-]|'(?=\w)|[\w.])*)
    | (?P<sign>->|::|<<=?|<=|>=|==|!=|&&|\|\||\+\+|--|\.\.\.|.)""",
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(r'[ \t]*#[ \t]*(?:(?:line[ \t]+)?(?P<line>\d+)(?:[ \t]+"(?P<file>(?:[^"\\\n]|\\.)*)")?)?[^\n]*')
PAIRS = {"(": ")", "[": "]", "{": "}"}


class Token(NamedTuple):
    kind: str  # word, number, string, char, raw, sign
    text: str
    start: int
    end: int
    file: int  # its number in Text.files
    line: int


class Text:
    """A preprocessed text as tokens; its line markers are read, so that each token knows file and line."""

    def __init__(self, text: str, file: str):
        self.text, self.files = text, [file]
        self.tokens: list[Token] = []
        self.match: dict[int, int] = {}  # of a bracket's token: the number of the one that closes it
        self.markers: list[tuple[int, int, int, int]] = []  # (start, end, file, line of what follows)
        self._read()
        self._pair()

    def _read(self) -> None:
        text, at, file, line = self.text, 0, 0, 1
        fresh = True  # at the beginning of a line
        while at < len(text):
            if fresh:
                directive = _DIRECTIVE.match(text, at)
                if directive:
                    if directive["line"]:
                        name = directive["file"]
                        if name is not None:
                            file = self.files.index(name) if name in self.files else len(self.files)
                            if file == len(self.files):
                                self.files.append(name)
                        line = int(directive["line"]) - 1
                    self.markers.append((at, directive.end(), file, line + 1))
                    at, fresh = directive.end(), False
                    continue
            if text[at] == "\n":
                at, line, fresh = at + 1, line + 1, True
                continue
            match = _TOKEN.match(text, at)
            assert match  # the last alternative takes any character
            kind = str(match.lastgroup if match.lastgroup != "mark" else "raw")
            if kind == "space":
                stop = text.find("\n", at, match.end())
                end = match.end() if stop < 0 or text[at] == "/" else stop
                line += text.count("\n", at, end)
                fresh = fresh and text[at] != "/"
                at = end
                continue
            self.tokens.append(Token(kind, match[0], at, match.end(), file, line))
            line += match[0].count("\n")
            at, fresh = match.end(), False

    def _pair(self) -> None:
        open_: list[int] = []
        for i, token in enumerate(self.tokens):
            if token.kind != "sign":
                continue
            if token.text in PAIRS:
                open_.append(i)
            elif token.text in ")]}":
                while open_ and PAIRS[self.tokens[open_[-1]].text] != token.text and token.text == "}":
                    self.match[open_.pop()] = i  # a bracket that nobody closed ends with its block
                if open_ and PAIRS[self.tokens[open_[-1]].text] == token.text:
                    self.match[open_.pop()] = i
        for i in open_:
            self.match[i] = len(self.tokens) - 1

    def code(self, begin: int, end: int) -> str:
        """Tokens [begin, end) in one line."""
        words = (token.text for token in self.tokens[begin:end])
        return re.sub(r" ?(::|[(\[<]) ?| (?=[)\],>*&])", r"\1", " ".join(words)).strip()

    def past_angles(self, i: int, end: int) -> int:
        """Behind the > that closes the < at token i; i where it is a comparison."""
        depth, j = 0, i
        while j < end:
            text = self.tokens[j].text if self.tokens[j].kind == "sign" else ""
            if text == "<":
                depth += 1
            elif text == ">":
                depth -= 1
                if depth == 0:
                    return j + 1
            elif text in ("(", "[", "{"):
                j = self.match[j]
            elif text in (";", ")", "]", "}"):
                break
            j += 1
        return i
