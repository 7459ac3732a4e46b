"""docs/tutorial.md: twelve steps, in one program, that print what stands below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import minigrad

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^## (\d+)\. [^\n]*\n\n.*?^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", PAGE, re.DOTALL | re.M)


def test_every_step_of_the_tutorial_prints_what_the_page_says(tmp_path, monkeypatch):
    assert [int(number) for number, _, _ in STEPS] == list(range(1, 13)) and PAGE.count("```python") == 12
    pytest.importorskip("onnx", reason="the last step writes an ONNX file")
    monkeypatch.chdir(tmp_path)
    minigrad.set_default_devices("cpu:0")
    names = {"__name__": "tutorial"}
    for number, code, printed in STEPS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"docs/tutorial.md, step {number}", "exec"), names)
        assert out.getvalue() == printed, f"step {number}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.onnx", "bars.safetensors", "loss.dot"]
