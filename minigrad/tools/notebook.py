"""What a notebook shows of tensors and modules, when one is the last line of a cell.

Tensors and modules know nothing of it: their `_repr_html_`, which notebooks ask for, is set here.  (A Profile, a
Summary and a Drawing are made to be looked at, and bring their own.)
"""

from __future__ import annotations

from html import escape

import numpy as np

from ..nn import Module, Parameter
from ..tensor import Tensor
from . import html

EDGE = 4  # rows and columns that are shown of a large tensor at each end
MOST = 12  # how many of them make it large


def tensor_html(tensor: Tensor) -> str:
    """A table of the values of vectors and matrices, the ends of large ones; of others, of which numbers they are.

    Above it shape, dtype and device, and the op that made the tensor; the smallest, mean and largest value, of the
    finite ones where some are not, and how many are nan or inf.
    """
    values = tensor.numpy()
    name = "Parameter" if isinstance(tensor, Parameter) else "Tensor"
    facts = [f"{name} {' x '.join(map(str, tensor.shape)) or '()'}", str(tensor.dtype), str(tensor.device)]
    if tensor.node is not None:
        facts.append(f"op {tensor.node.name}")
    elif tensor.requires_grad:
        facts.append("requires_grad")
    if not values.ndim:
        facts.append(f"value {_number(values[()])}")
    elif values.size and values.dtype.kind != "b":
        finite = values[np.isfinite(values)]
        if finite.size:
            low, mean, high = finite.min(), finite.mean(dtype=np.float64), finite.max()
            facts.append(f"from {_number(low)} to {_number(high)}, mean {_number(mean)}")
        if finite.size < values.size:
            facts.append(f"{values.size - finite.size:,} nan or inf")
    head = f"<div><b>{escape(facts[0])}</b>, {escape(', '.join(facts[1:]))}</div>"
    if values.ndim not in (1, 2) or not values.size:
        return head
    rows = values.reshape(1, -1) if values.ndim == 1 else values
    down, across = _places(rows.shape[0]), _places(rows.shape[1])
    lines = [["", *("…" if j is None else str(j) for j in across)]]
    for i in down:
        title = "…" if i is None else str(i) if values.ndim == 2 else ""
        lines.append([title, *("…" if i is None or j is None else _number(rows[i, j]) for j in across)])
    return head + html.table(lines, 1)


def module_html(module: Module) -> str:
    """The tree of modules, as `print` has it, where parts can be folded away."""
    return f'<div style="line-height:1.5">{_folded("", module)}</div>'


def _folded(name: str, module: Module) -> str:
    count = module.num_parameters()
    line = f"{escape(name + ': ' if name else '')}<b>{escape(type(module).__name__)}</b>({escape(module.settings())})"
    line += f" <i>{count:,} parameters</i>" if count else ""
    inner = "".join(_folded(child_name, child) for child_name, child in module.named_children())
    if not inner:
        return f'<div style="margin-left:2.2em">{line}</div>'
    return f'<details open style="margin-left:1em"><summary>{line}</summary>{inner}</details>'


def _places(n: int) -> list[int | None]:
    """0 to n - 1; of many, those at the ends, and None between."""
    return list(range(n)) if n <= MOST else [*range(EDGE), None, *range(n - EDGE, n)]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value)


setattr(Tensor, "_repr_html_", tensor_html)  # noqa: B010 (mypy refuses the plain form)
setattr(Module, "_repr_html_", module_html)  # noqa: B010
