"""python -m minigrad.cudasim: a clean kernel, broken ones, and ways to say which."""

import subprocess
import sys

import pytest

from minigrad import kernel
from minigrad.cudasim.__main__ import main
from minigrad.cudasim.compiler import available

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
    assert main([relu(tmp_path, "value < 0 ? REAL(0) : value", "value < -1 ? REAL(0) : value")]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out and "kernels/relu.cu: 3 wrong results." in out  # one in each order
    assert main(["relu"]) == 0  # the file itself is what it was


def test_a_fault_is_reported_with_its_line(tmp_path, capsys):
    path = relu(tmp_path, "y[i] = value", "y[i + 1] = value")
    line = next(i for i, text in enumerate(open(path), 1) if "y[i + 1]" in text)
    assert main([path]) == 1
    out = capsys.readouterr().out
    assert f"kernels/relu.cu:{line}: OOB-GLOBAL" in out and "kernels/relu.cu: a fault." in out


def test_another_name_and_prints(tmp_path, capsys):
    path = relu(tmp_path, "REAL value = x[i];", 'REAL value = x[i]; if (i == 5) printf("here is %d\\n", 5);', "mine.cu")
    assert main(["kernels/relu.cu", "--source", path, "--order", "forward"]) == 0
    assert capsys.readouterr().out.count("here is 5\n") == 1
    assert main([path]) == 2
    assert "there is no kernel file of that name; there are" in capsys.readouterr().err


def test_a_source_that_does_not_compile(tmp_path, capsys):
    assert main([relu(tmp_path, "REAL value = x[i];", "REAL value = nonsense;")]) == 1
    assert "nonsense" in capsys.readouterr().out


def test_a_step_of_the_ladder_by_its_file_name(tmp_path, capsys):
    path = tmp_path / "conv2d_2_tiled.cu"
    path.write_text(kernel.kernel_source("ladder/conv2d_2_tiled").replace("__syncthreads();", "", 1))
    assert main([str(path), "--order", "forward"]) == 1
    assert "kernels/ladder/conv2d_2_tiled.cu" in capsys.readouterr().out


def test_what_cannot_be_tried(capsys, monkeypatch):
    assert main(["kernels/relu.cu", "--case", "nothing"]) == 2
    assert "has no case 'nothing'; it has: 'relu'" in capsys.readouterr().err
    assert main(["kernels/relu.cu", "--source", "/nowhere/x.cu"]) == 2
    with pytest.raises(SystemExit):
        main(["kernels/relu.cu", "--mode", "slow"])


def test_as_a_command(tmp_path):
    path = relu(tmp_path, "i < n", "i <= n")
    done = subprocess.run([sys.executable, "-m", "minigrad.cudasim", path], capture_output=True, text=True)
    assert done.returncode == 1 and "OOB-GLOBAL" in done.stdout
