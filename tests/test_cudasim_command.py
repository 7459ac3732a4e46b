"""python -m minigrad.cudasim: a clean kernel, broken ones, and ways to say which."""

import os
import re
import subprocess
import sys

import pytest

import minigrad
from minigrad import KernelError
from minigrad.cudasim.__main__ import main
from minigrad.cudasim.compiler import available
from minigrad.cudasim.settings import current, options
from minigrad.errors import printable
from minigrad.gpu import sources as kernel

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its device along"),
]


def relu(tmp_path, old, new, name="relu.cu"):
    """A file of that name: kernels/relu.cu with a change."""
    source = kernel.kernel_source("relu")
    assert old in source
    path = tmp_path / name
    path.write_text(source.replace(old, new))
    return str(path)


def test_a_clean_kernel(capsys):
    assert main(["kernels/relu.cu"]) == 0
    out = capsys.readouterr().out
    for order in ("forward", "reversed", "random"):
        assert f"check, threads {order}: " in out
    assert "relu, float32: x (3, 7, 11, 13)" in out and "y 0, dx 0" in out
    assert "global load" in out and "bytes read" in out and "kernels/relu.cu:" in out
    assert "kernels/relu.cu: no report, results as NumPy's." in out
    assert out.count("bytes read") == 1  # the counters of the first order
    main(["kernels/relu.cu"])
    assert capsys.readouterr().out == out  # which begin at zero


def test_one_mode_order_case_and_dtype(capsys):
    arguments = ["kernels/softmax.cu", "--mode", "fast", "--order", "reversed", "--case", "log_softmax"]
    assert main([*arguments, "--dtype", "float64"]) == 0
    out = capsys.readouterr().out
    assert "log_softmax, float64" in out and "axis 1" not in out
    assert out.count("threads") == 1 and "fast, threads reversed" in out and "bytes read" not in out
    assert "no report" not in out  # nothing was looked for


def test_a_wrong_result(tmp_path, capsys):
    assert main([relu(tmp_path, "x < 0 ? REAL(0) : x", "x < -1 ? REAL(0) : x")]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out and f"{tmp_path}/relu.cu: 3 wrong results." in out  # one in each order
    assert main(["relu"]) == 0  # the file itself is what it was


def test_a_fault_is_reported_with_its_line(tmp_path, capsys):
    path = relu(tmp_path, "each(n, y,", "each(n, y + 1,")
    line = next(i for i, text in enumerate(open(path), 1) if "y + 1" in text)
    assert main([path]) == 1
    out = capsys.readouterr().out
    assert f"{path}:{line}: OOB-GLOBAL" in out and f"{path}: a fault." in out


def test_another_name_and_prints(tmp_path, capsys):
    path = relu(tmp_path, "each(n, y,", 'if (global_thread() == 5) printf("here is %d\\n", 5); each(n, y,', "mine.cu")
    assert main(["kernels/relu.cu", "--source", path, "--order", "forward"]) == 0
    assert capsys.readouterr().out.count("here is 5\n") == 1
    assert main([path]) == 0  # a file of another name is anybody's: its kernels are listed
    assert f"{path}: 2 kernels" in capsys.readouterr().out
    assert main(["nothing.cu", "--case", "relu"]) == 2
    assert "there is no kernel file of that name; there are" in capsys.readouterr().err


def test_a_source_that_does_not_compile(tmp_path, capsys):
    assert main([relu(tmp_path, "each(n, y,", "each(n, nonsense,")]) == 1
    assert re.search(f"^{tmp_path}/relu.cu:\\d+:\\d+: error: .*nonsense", capsys.readouterr().out, re.MULTILINE)


def test_a_step_of_the_ladder_by_its_file_name(tmp_path, capsys):
    path = tmp_path / "conv2d_2_tiled.cu"
    path.write_text(kernel.kernel_source("ladder/conv2d_2_tiled").replace("__syncthreads();", "", 1))
    assert main([str(path), "--order", "forward"]) == 1
    assert re.search(f"^{path}:\\d+: RACE", capsys.readouterr().out, re.MULTILINE)


def test_what_cannot_be_tried(capsys, monkeypatch):
    assert main(["kernels/relu.cu", "--case", "nothing"]) == 2
    assert "has no case 'nothing' in float32; it has: 'relu' (float32, float64)" in capsys.readouterr().err
    assert main(["kernels/relu.cu", "--source", "/nowhere/x.cu"]) == 2
    with pytest.raises(SystemExit):
        main(["kernels/relu.cu", "--mode", "slow"])


def test_as_a_command(tmp_path):
    path = relu(tmp_path, "each(n, y,", "each(n + 1, y,")
    done = subprocess.run([sys.executable, "-m", "minigrad.cudasim", path], capture_output=True, text=True)
    assert done.returncode == 1 and "OOB-GLOBAL" in done.stdout


ENDLESS = """
extern "C" __global__ void relu_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    for (long long i = global_thread(); i < n; i += %s)
        y[i] = x[i] > 0 ? x[i] : REAL(0);
}
"""


@pytest.mark.parametrize("mode, step", [("check", "0"), ("fast", "0 * gridDim.x"), ("fast", "0")])
def test_a_loop_that_never_ends(tmp_path, capsys, mode, step):
    path = tmp_path / "relu.cu"
    path.write_text(ENDLESS % step)
    assert main([str(path), "--mode", mode, "--time-limit", "0.3"]) == 1
    out = capsys.readouterr().out
    found = re.search(
        rf"^{path}:(\d+): TIME-LIMIT: block \(0,0,0\) thread \(0,0,0\): .* limit of 0.3 s", out, re.MULTILINE
    )
    assert found and int(found[1]) in (3, 4), out


def test_the_time_limit_has_a_default_and_must_be_a_time(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("minigrad.cudasim.own_kernels._try", lambda *_: seen.append(current().time_limit) or 0)
    assert main(["kernels/relu.cu"]) == 0 and main(["kernels/relu.cu", "--time-limit", "77"]) == 0
    assert seen == [10, 77]
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(SystemExit):
            main(["kernels/relu.cu", "--time-limit", wrong])
        assert f"a time limit is a positive number of seconds, got '{wrong}'" in capsys.readouterr().err


NAMES = [
    "with space",
    "100%s",
    "a'b",
    'q"q',
    "back\\slash",
    "kernels",
    "new\nline",
    "déjà",
    os.fsdecode(b"no\xff8"),
    "x:7: y",
]


@pytest.mark.parametrize("name", NAMES)
def test_reports_name_the_file_as_the_user_did(tmp_path, capsys, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    source = kernel.kernel_source("relu")
    for path in (f"{name}/relu.cu", f"{tmp_path}/{name}/relu.cu"):
        for change, report in (("each(n, y + 1,", "4: OOB-GLOBAL: "), ("each(n, nonsense,", "4:13: error: 'nonsense'")):
            with open(path, "w") as file:
                file.write(source.replace("each(n, y,", change))
            assert main([path, "--order", "forward"]) == 1
            out = capsys.readouterr().out.replace("‘", "'").replace("’", "'")
            assert f"\n{printable(path)}:{report}" in out, out
            assert f"\n{printable(path)}: a fault." in out


def test_a_file_here_comes_before_one_of_ours(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relu(tmp_path, "each(n, y,", "each(n, y + 1,")
    assert main(["relu.cu", "--order", "forward"]) == 1
    assert "\nrelu.cu:4: OOB-GLOBAL" in capsys.readouterr().out
    assert main(["relu", "--order", "forward"]) == 0 and main(["kernels/relu.cu", "--order", "forward"]) == 0


def test_a_file_in_another_encoding(tmp_path, capsys):
    (tmp_path / "relu.cu").write_bytes(b"// caf\xe9\n")
    assert main([str(tmp_path / "relu.cu")]) == 2
    assert f"{tmp_path}/relu.cu: is no text in UTF-8: " in capsys.readouterr().err


def test_a_kernel_by_an_absolute_path(tmp_path):
    path = tmp_path / "kernels" / "mine.cu"
    path.parent.mkdir()
    path.write_text('extern "C" __global__ void ones(int* __restrict__ y) {\n    y[threadIdx.x + 1] = 1;\n}\n')
    where = minigrad.device("cudasim:0")
    with options(mode="check"), pytest.raises(KernelError) as caught:
        where.launch(str(path.with_suffix("")), "ones", 1, 8, where.empty((8,), "int32"))
    assert f"\n{path}:2: OOB-GLOBAL" in str(caught.value)
    with pytest.raises(KernelError, match=f"no such entry point in {path}"):
        where.launch(str(path.with_suffix("")), "twos", 1, 8)
