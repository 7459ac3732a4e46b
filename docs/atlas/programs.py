"""Programs that a page shows, and what they printed while the page was made."""

from __future__ import annotations

import contextlib
import html
import io
from collections.abc import Mapping

from .listing import code

PROOF = """
def worst_difference(f, inputs, eps=1e-6):
    \"\"\"The largest difference between backward and (loss(x + eps) - loss(x - eps)) / 2 eps, over all elements.\"\"\"
    y = f(*inputs)
    r = np.random.default_rng(0).standard_normal(y.shape)   # loss = sum of r * y
    y.backward(minigrad.Tensor(r, device=y.device))
    worst = 0.0
    for t in inputs:
        for at in np.ndindex(t.shape):
            losses = []
            for step in (eps, -2 * eps):
                with minigrad.no_grad():
                    t[at] = t.numpy()[at] + step
                    losses.append((r * f(*inputs).numpy()).sum())
            with minigrad.no_grad():
                t[at] = t.numpy()[at] + eps
            numeric = (losses[0] - losses[1]) / (2 * eps)
            worst = max(worst, abs(t.grad.numpy()[at] - numeric))
    return worst
"""
HEAD = "import minigrad\nimport minigrad.functional as F\nimport numpy as np\n"


def run(text: str, hidden: str = HEAD) -> str:
    """What a program prints.  hidden: what comes before it, and is not shown."""
    import numpy as np

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), np.printoptions(precision=4, suppress=True, linewidth=100):
        exec(compile(hidden + text, "<page>", "exec"), {"__name__": "page"})  # noqa: S102  (a program of ours)
    return printed.getvalue()


def printed(text: str, hidden: str = HEAD, names: Mapping[str, str] | None = None) -> str:
    """A program, and below it what it printed just now."""
    text = text.strip("\n")
    output = run(text + "\n", hidden)
    return f'{code(text, names=names)}<div class="printed"><p class="tag">prints</p>{code(output, "text", {})}</div>'


def refused(text: str, hidden: str = HEAD) -> str:
    """A line that minigrad refuses, and the error as Python prints its last line."""
    from minigrad.errors import MinigradError

    try:
        run(text, hidden)
    except MinigradError as error:
        message = f"{type(error).__name__}: {error}"
    else:
        raise AssertionError(f"is not refused, but the page says so: {text}")
    return f'{code(text)}<pre class="code error" tabindex="0"><code>{html.escape(message)}</code></pre>'


def proof(f: str, inputs: str, before: str) -> tuple[str, float]:
    """The program that compares backward with finite differences, with its output; and the number it printed.

    f: a function, as Python has it.  inputs: names of float64 tensors that want gradients.  before: what makes them.
    """
    text = f"{before.strip()}\n\nprint(worst_difference({f}, [{inputs}]))"
    number = float(run(PROOF + text + "\n"))
    if not number < 1e-7:
        raise AssertionError(f"backward and finite differences differ by {number}: {text}")
    shown = f"{code(PROOF)}"
    return (
        f"<details><summary>worst_difference, the whole of it</summary>{shown}</details>{printed(text, HEAD + PROOF)}",
        number,
    )
