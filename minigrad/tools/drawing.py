"""A graph as a picture: in Graphviz's language, in Mermaid's, and as SVG where Graphviz is installed.

draw.py makes graphs of tensors and models; here they only get their looks.

Source: the languages are those of graphviz.org/doc/info/lang.html and mermaid.js.org/syntax/flowchart.html.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import NamedTuple

from ..base import files
from ..errors import ArgumentError, DataError, MinigradError, MissingDependencyError, one_line, printable

TEXT = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}  # file endings of what needs no Graphviz
PICTURES = (".svg", ".png", ".pdf")  # and of what does
LONGEST = 60  # seconds that Graphviz gets for one picture

# What a node is: the colour of its box in a drawing, and its shape in Graphviz's and in Mermaid's language.
LOOKS = {
    "layer": ("#d6e6f5", "box", ("[", "]")),
    "op": ("#f2f2f2", "box", ("[", "]")),
    "parameter": ("#f9e4c8", "ellipse", ("([", "])")),
    "end": ("#dcefd9", "ellipse", ("([", "])")),
}
CROSSING = "#c0392b"  # the colour of an edge from one device to another


class Node(NamedTuple):
    """A box: what it is (LOOKS), its lines of text, and the group, a device's name, that it stands in; "" for none."""

    look: str
    lines: list[str]
    group: str = ""


class Edge(NamedTuple):
    """From one node to another, by their places in the list; crossing: from one device to another."""

    start: int
    end: int
    crossing: bool = False


class Drawing:
    """What `draw` returns: a graph that a notebook shows, and that `save` writes.

    dot, mermaid: the graph in Graphviz's and in Mermaid's language; printed, a drawing is `dot`.
    nodes, edges: what it is made of.
    """

    def __init__(self, nodes: list[Node], edges: list[Edge], direction: str):
        self.nodes, self.edges, self.direction = nodes, edges, direction

    @property
    def dot(self) -> str:
        lines = [
            "digraph {",
            f'  rankdir={self.direction}; bgcolor="white"; fontname="Helvetica"; nodesep=0.3; ranksep=0.4;',
            '  node [fontname="Helvetica", fontsize=11, style="filled,rounded", color="#555555", margin="0.12,0.06"];',
            '  edge [color="#555555", arrowsize=0.7];',
        ]
        for number, (group, members) in enumerate(self._groups()):
            indent = "    " if group else "  "
            if group:
                lines.append(f"  subgraph cluster_{number} {{")
                lines.append(f'    label="{_dot(group)}"; style="rounded"; color="#888888"; fontsize=13;')
            for i in members:
                look, text, _ = self.nodes[i]
                colour, shape, _ = LOOKS[look]
                label = "\\n".join(map(_dot, text))
                lines.append(f'{indent}n{i} [label="{label}", shape={shape}, fillcolor="{colour}"];')
            if group:
                lines.append("  }")
        for start, end, crossing in self.edges:
            lines.append(f"  n{start} -> n{end}" + (f' [color="{CROSSING}", penwidth=1.6];' if crossing else ";"))
        return "\n".join([*lines, "}", ""])

    @property
    def mermaid(self) -> str:
        lines = [f"flowchart {self.direction}"]
        for number, (group, members) in enumerate(self._groups()):
            if group:
                lines.append(f'  subgraph g{number}["{_mermaid(group)}"]')
            for i in members:
                look, text, _ = self.nodes[i]
                left, right = LOOKS[look][2]
                lines.append(f'    n{i}{left}"{"<br/>".join(map(_mermaid, text))}"{right}:::{_class(look)}')
            if group:
                lines.append("  end")
        lines += [f"  n{start} {'==>' if crossing else '-->'} n{end}" for start, end, crossing in self.edges]
        for look, (colour, _, _) in LOOKS.items():
            if any(node.look == look for node in self.nodes):
                lines.append(f"  classDef {_class(look)} fill:{colour},stroke:#555,color:#000")
        crossing = [str(i) for i, edge in enumerate(self.edges) if edge.crossing]
        if crossing:
            lines.append(f"  linkStyle {','.join(crossing)} stroke:{CROSSING}")
        return "\n".join([*lines, ""])

    def _groups(self) -> list[tuple[str, list[int]]]:
        """The nodes by group, those in none first, groups in the order of their names."""
        names = sorted({node.group for node in self.nodes})
        return [(name, [i for i, node in enumerate(self.nodes) if node.group == name]) for name in names]

    def svg(self) -> str:
        """The picture as SVG; MissingDependencyError where Graphviz is not installed."""
        return self._picture("svg").decode("utf-8")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawing, in the form that the ending of `path` says; returns where it was written.

        .svg, .png, .pdf: by Graphviz.  Where it is not installed, a warning says so, and the graph is written as text
        that Graphviz can draw elsewhere, beside, as PATH.dot.
        .dot, .gv, .mmd: Graphviz's language, and Mermaid's, as text.
        ArgumentError for other endings; DataError where the file cannot be written.
        """
        place = Path(path)
        ending = place.suffix.lower()
        if ending in TEXT:
            content = getattr(self, TEXT[ending]).encode("utf-8")
        elif ending not in PICTURES:
            raise ArgumentError(
                f"draw: {printable(place)}: drawings are files that end in {', '.join((*PICTURES, *TEXT))}: take one"
            )
        elif shutil.which("dot"):
            content = self._picture(ending[1:])
        else:
            place = place.with_name(f"{place.name}.dot")
            warnings.warn(f"draw: {_MISSING}; wrote {printable(place)} instead, as text", stacklevel=3)
            content = self.dot.encode("utf-8")
        with files.writing(place, lambda message: DataError(f"draw: {message}")) as file:
            file.write(content)
        return place

    def _picture(self, kind: str) -> bytes:
        program = shutil.which("dot")
        if program is None:
            raise MissingDependencyError(f"draw: {_MISSING}; .dot and .mermaid are the graph as text")
        try:
            command = [program, f"-T{kind}"]
            made = subprocess.run(command, input=self.dot.encode(), capture_output=True, timeout=LONGEST, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            said = printable((getattr(error, "stderr", b"") or b"").decode("utf-8", "replace").strip()[-300:])
            raise MinigradError(
                f"draw: Graphviz ({printable(program)}) has not made a picture of {len(self.nodes)} nodes: "
                f"{said or one_line(error)}: write the graph as text, to a file that ends in .dot"
            ) from error
        return made.stdout

    def __str__(self) -> str:
        return self.dot

    def __repr__(self) -> str:
        return f"<drawing of {len(self.nodes)} nodes and {len(self.edges)} edges: .save('graph.svg'), .dot, .mermaid>"

    # A notebook takes the first of these that is not None.  Mermaid's text it draws itself.

    def _repr_svg_(self) -> str | None:
        return self.svg() if shutil.which("dot") else None

    def _repr_markdown_(self) -> str | None:
        return None if shutil.which("dot") else f"```mermaid\n{self.mermaid}```"


_MISSING = (
    "pictures are made by Graphviz, whose program `dot` is not installed here: apt install graphviz, or "
    "brew install graphviz"
)


def _dot(text: str) -> str:
    """In quotes of Graphviz's language, which also knows HTML's names of characters."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _mermaid(text: str) -> str:
    """In quotes of Mermaid's language, which takes HTML and Markdown as such: all but letters by their numbers."""
    return "".join(c if c.isalnum() or c in " .,:()x-_" else f"#{ord(c)};" for c in printable(text))


def _class(look: str) -> str:
    return f"{look}_"  # "end" alone would end a subgraph
