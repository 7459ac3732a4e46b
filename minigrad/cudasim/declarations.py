"""The declarations of a preprocessed C++ text, one by one, with the names that each gives and uses.

No parser: it knows brackets, strings, template headers and where a declaration ends, which is enough to tell the code
of the device from the host's, and what a kernel needs from what it does not.  g++ is there for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from .tokens import PAIRS, Text

# What may have brackets in a declaration without being its name.
_ATTRIBUTES = {
    *("__launch_bounds__", "__attribute__", "__align__", "alignas", "decltype", "__declspec", "noexcept", "requires"),
    *("__cluster_dims__", "__maxnreg__", "__builtin_align__", "explicit", "__declspec__", "throw", "typeof"),
    *("__block_size__", "__decltype", "__typeof__"),
}
_BEGINS = {  # what begins a declaration: a macro in brackets before it has ended, with or without a semicolon
    *("template", "namespace", "using", "typedef", "extern", "static", "inline", "constexpr", "class", "struct"),
    *("enum", "union", "__global__", "__device__", "__host__", "__constant__", "__shared__", "__managed__"),
    *("void", "int", "float", "double", "unsigned", "char", "bool", "auto"),
}
CLASS_KEYS = {"struct", "class", "union", "enum"}


@dataclass
class Declaration:
    """One declaration.

    kind: "function", "class", "enum", "alias", "variable", or "always" (what costs nothing and gives no name).
    names: what it declares; begin, end, body: token numbers, body that of its brace; head: the words before the body,
    outside of brackets; scope: the namespaces around it, "" for one without a name.
    """

    text: Text
    kind: str
    names: set[str]
    begin: int
    end: int
    scope: tuple[str, ...]
    head: set[str] = field(default_factory=set)
    body: int | None = None
    parameters: int | None = None  # the token of the bracket before them
    templates: tuple[tuple[int, int], ...] = ()  # of each header: what lies between < and >
    inside: list[Declaration] = field(default_factory=list)  # of a class: its members

    @cached_property
    def words(self) -> set[str]:
        return {token.text for token in self.text.tokens[self.begin : self.end] if token.kind == "word"}

    @property
    def device(self) -> bool:
        """Whether it may be code or memory of the device."""
        if self.kind == "function":
            return bool(self.head & {"__device__", "__global__", "constexpr", "consteval"})
        if self.kind == "variable":
            return bool(self.head & {"__device__", "__constant__", "__shared__", "__managed__", "const", "constexpr"})
        return True


def declarations(text: Text) -> list[Declaration]:
    return list(_scope(text, 0, len(text.tokens), (), False))


def _scope(text: Text, i: int, end: int, scope: tuple[str, ...], in_class: bool) -> Iterator[Declaration]:
    tokens = text.tokens
    while i < end:
        word = tokens[i].text
        next_ = tokens[i + 1].text if i + 1 < end else ""
        if word in (";", "}", ")", "]"):
            i += 1
        elif word == "extern" and i + 1 < end and tokens[i + 1].kind == "string":
            if i + 2 < end and tokens[i + 2].text == "{":
                yield from _scope(text, i + 3, text.match[i + 2], scope, False)
                i = text.match[i + 2] + 1
            else:
                i += 2
        elif word == "namespace" or (word == "inline" and next_ == "namespace"):
            j = _until(text, i, end, "{;=")
            if j < end and tokens[j].text == "{":
                name = [t.text for t in tokens[i:j] if t.kind == "word" and t.text not in ("namespace", "inline")]
                yield from _scope(text, j + 1, text.match[j], (*scope, *(name or [""])), False)
                i = text.match[j] + 1
            else:
                j = _until(text, i, end, ";")
                yield Declaration(text, "always", {tokens[i + 1].text}, i, j + 1, scope)
                i = j + 1
        elif in_class and word in ("public", "private", "protected") and next_ == ":":
            i += 2
        elif word in ("static_assert", "asm", "__asm__", "__asm") and not in_class:
            i = _until(text, i, end, ";") + 1
        else:
            one = _one(text, i, end, scope)
            if one.kind != "nothing":
                yield one
            i = max(one.end, i + 1)


def _until(text: Text, i: int, end: int, signs: str) -> int:
    """The next of these signs outside of brackets."""
    while i < end:
        token = text.tokens[i]
        if token.kind == "sign":
            if token.text in signs:
                return i
            if token.text in PAIRS:
                i = text.match[i]
        i += 1
    return end


def _one(text: Text, begin: int, end: int, scope: tuple[str, ...]) -> Declaration:
    tokens = text.tokens
    i, templates = begin, []
    while i + 1 < end and tokens[i].text == "template":
        if tokens[i + 1].text != "<":  # an explicit instantiation
            return Declaration(text, "nothing", set(), begin, _until(text, i, end, ";") + 1, scope)
        behind = text.past_angles(i + 1, end)
        if behind == i + 1:
            behind = i + 2
        templates.append((i + 2, behind - 1))
        i = behind
    found = Declaration(text, "variable", set(), begin, end, scope, templates=tuple(templates))
    first = tokens[i].text if i < end else ""
    if first in ("using", "typedef"):
        stop = _until(text, i, end, ";")
        found.kind, found.end = ("always" if tokens[i + 1].text == "namespace" else "alias"), stop + 1
        brace = next((j for j in range(i, stop) if tokens[j].text == "{"), stop)
        fields = range(brace, text.match.get(brace, brace))
        named = [
            j
            for j in range(i + 1, stop)
            if tokens[j].kind == "word" and tokens[j + 1].text in (";", ",", "[", "=", ")") and j not in fields
        ]
        if first == "using":
            named = named[:1]
        else:  # typedef struct Point {...} Point: the tag, too
            named += [j + 1 for j in range(i, stop - 1) if tokens[j].text in CLASS_KEYS]
        found.names = {tokens[j].text for j in named}
        return found
    _walk(found, i, end)
    return found


def _walk(found: Declaration, i: int, end: int) -> None:
    """Goes through a declaration to its end, and fills in what it finds on the way."""
    text, tokens = found.text, found.text.tokens
    start, key, initialised, colon = i, "", False, False
    while i < end:
        token = tokens[i]
        before = tokens[i - 1].text if i > start else ""
        if token.kind == "word":
            if found.body is None and not initialised:
                found.head.add(token.text)
            if token.text in CLASS_KEYS and not found.parameters and not initialised:
                key = key or token.text
            if token.text == "operator" and not found.parameters:
                i = _operator(found, i, end)
                continue
        elif token.kind == "sign":
            sign = token.text
            if sign == ";":
                i += 1
                break
            if sign in ("=", ",", ":") and found.parameters is None and not key:
                _name(found, i)
            if sign == "=" and not colon:
                initialised = True
            elif sign == ":" and found.parameters is not None:
                colon = True
            elif sign == "<" and i > start and tokens[i - 1].kind == "word" and not initialised:
                i = max(text.past_angles(i, end), i + 1)
                continue
            elif sign == "[":
                if found.parameters is None and not initialised and tokens[i - 1].kind == "word":
                    _name(found, i)
                i = text.match[i]
            elif sign == "(":
                attribute = before in _ATTRIBUTES
                if not attribute and found.parameters is None and not initialised:
                    found.parameters = i
                    _name(found, i)
                i = text.match[i]
                if not attribute and not initialised and i + 1 < end and tokens[i + 1].text in _BEGINS:
                    i += 1
                    break
            elif sign == "{":
                is_class = key and found.parameters is None and not initialised
                if is_class:
                    found.kind = "enum" if key == "enum" else "class"
                    found.body = i
                    _class(found, start, i, key)
                elif found.parameters is None or initialised:
                    if not initialised and not key:
                        _name(found, i)
                else:
                    behind = tokens[text.match[i] + 1].text if text.match[i] + 1 < end else ""
                    if not (colon and behind in (",", "{")):
                        found.kind, found.body = "function", i
                        i = text.match[i] + 1
                        break
                i = text.match[i]
        i += 1
    found.end = i
    if found.kind == "variable":
        if found.parameters is not None and not initialised and not found.head & {"__shared__", "__constant__"}:
            found.kind = "function"  # a prototype
        elif (
            found.parameters is not None and "__device__" in found.head and tokens[i - 2].text in ("default", "delete")
        ):
            found.kind = "function"
        elif key and found.body is None and not initialised and i - start <= 4:
            found.kind = "class"  # struct Name;
            found.names |= {t.text for t in tokens[start:i] if t.kind == "word"} - CLASS_KEYS
        elif i >= 2 and tokens[i - 2].kind == "word" and not initialised:
            found.names.add(tokens[i - 2].text)


def _name(found: Declaration, i: int) -> None:
    """The name before token i; of a function Class<T>::name, the class."""
    tokens = found.text.tokens
    j = i - 1
    if tokens[j].text == ")" or tokens[j].kind != "word":  # float (*name)(int): what is in the brackets
        inner = [t.text for t in tokens[i : found.text.match.get(i, i)] if t.kind == "word"]
        found.names |= set(inner[:1])
        return
    found.names.add(tokens[j].text)
    if tokens[i].text == "(" and j - 1 > found.begin and tokens[j - 1].text in ("::", "~"):
        k = j - 1
        while k > found.begin and tokens[k].text != "::":
            k -= 1
        while k > found.begin and tokens[k - 1].text == ">":
            depth = 0
            while k > found.begin:
                k -= 1
                depth += {">": 1, "<": -1}.get(tokens[k].text, 0)
                if depth == 0:
                    break
        if tokens[k - 1].kind == "word" and tokens[k].text in ("::", "<"):
            found.names = {tokens[k - 1].text}


def _operator(found: Declaration, i: int, end: int) -> int:
    """operator+ and its kin: the token of the bracket before the parameters."""
    tokens = found.text.tokens
    j = i + 1
    if j + 1 < end and tokens[j].text == "(" and tokens[j + 1].text == ")":
        j += 2
    while j < end and tokens[j].text not in ("(", ";", "{"):
        j += 1
    if j < end and tokens[j].text == "(":
        found.parameters = j
        found.head.add("operator")
        found.names.add("operator")
        if tokens[i - 1].text == "::" and i - 2 > found.begin:
            found.names.add(tokens[i - 2].text)
        return found.text.match[j] + 1
    return j


def _class(found: Declaration, start: int, brace: int, key: str) -> None:
    text, tokens = found.text, found.text.tokens
    close = text.match[brace]
    j = start
    while j < brace and tokens[j].text not in CLASS_KEYS:
        j += 1
    while j < brace and tokens[j].text != ":":
        if tokens[j].text in _ATTRIBUTES and tokens[j + 1].text == "(":
            j = text.match[j + 1]
        elif tokens[j].kind == "word" and tokens[j].text not in CLASS_KEYS and not tokens[j].text.startswith("__"):
            found.names.add(tokens[j].text)
            break
        j += 1
    if key == "enum":
        inner = range(brace + 1, close)
        found.names |= {tokens[k].text for k in inner if tokens[k].kind == "word" and tokens[k - 1].text in ("{", ",")}
        return
    found.inside = list(_scope(text, brace + 1, close, found.scope, True))
    stop = _until(text, close + 1, len(tokens), ";")
    found.names |= {t.text for t in tokens[close + 1 : stop] if t.kind == "word"}  # struct {...} table[4];


def closure(all_: list[Declaration], roots: set[str], also: Callable[[Declaration], bool]) -> list[Declaration]:
    """What these names need, by name and transitively, in the order of the text; and all that `also` accepts.

    Code of the host is left out: nothing of the device can need it.
    """
    given: dict[str, list[Declaration]] = {}
    for one in all_:
        for name in one.names:
            given.setdefault(name, []).append(one)
    kept: dict[int, Declaration] = {id(one): one for one in all_ if also(one)}
    waiting = set(roots)
    for one in kept.values():
        waiting |= used_words(one)
    seen: set[str] = set()
    while waiting:
        while waiting:
            name = waiting.pop()
            seen.add(name)
            for one in given.get(name, ()):
                if id(one) in kept or not one.device or (name == "operator" and "operator" in one.head):
                    continue
                kept[id(one)] = one
                waiting |= used_words(one) - seen
        for one in given.get("operator", ()):  # used without being named: wherever its types are
            if id(one) in kept or not one.device or one.parameters is None:
                continue
            close = one.text.match[one.parameters]
            types = {t.text for t in one.text.tokens[one.parameters : close] if t.kind == "word"}
            if types & seen or one.templates:
                kept[id(one)] = one
                waiting |= used_words(one) - seen
    return [one for one in all_ if id(one) in kept]


def used_words(one: Declaration) -> set[str]:
    """The words of a declaration without its members that only the host may call."""
    words = set(one.words)
    left_out = [m for m in _members(one) if host_only(m)]
    if left_out:
        tokens = one.text.tokens
        gone = {i for m in left_out for i in range(m.begin, m.end)}
        words = {tokens[i].text for i in range(one.begin, one.end) if i not in gone and tokens[i].kind == "word"}
    return words


def _members(one: Declaration) -> Iterator[Declaration]:
    for member in one.inside:
        yield member
        yield from _members(member)


def host_members(one: Declaration) -> list[Declaration]:
    return [member for member in _members(one) if host_only(member)]


def host_only(member: Declaration) -> bool:
    tokens = member.text.tokens
    if member.kind != "function" or member.device:
        return False
    return tokens[member.end - 2].text not in ("default", "delete")
