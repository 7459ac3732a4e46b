"""python -m minigrad.cudasim with anybody's CUDA file: lists, runs, compares, and says what it cannot."""

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad import ArgumentError, KernelError
from minigrad.cudasim import command, run
from minigrad.cudasim.__main__ import _is_about_own, main
from minigrad.cudasim.compiler import available
from minigrad.cudasim.memory import memory_left
from minigrad.cudasim.passing import Empty, Parameter
from minigrad.cudasim.values import Value

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its device along"),
]

ROOT = Path(__file__).parent.parent
HOMEWORK = ROOT / "examples" / "cuda_homework"

TWO = """
// Two kernels.
__global__ void saxpy(int n, float a, const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
    if (i == 3) printf("three\\n");
}

__global__ void copy(const int* from, int* to, double* sum, int rows, int columns) {
    extern __shared__ int tile[];
    int r = blockIdx.y * blockDim.y + threadIdx.y, c = blockIdx.x * blockDim.x + threadIdx.x;
    if (r < rows && c < columns) to[r * columns + c] = from[r * columns + c];
    if (r == 0 && c == 0) sum[0] = rows * columns;
}
"""
SAXPY = "--kernel saxpy --grid 2 --block 64 n=100 a=2.0 x=arange:100 y=ones:128".split()
REFERENCE = """
import numpy as np
import beside  # a module that lies beside this file

def saxpy(n, a, x, y):
    y[:n] += a * x[:n]
    return y

def only_x(x):
    return {"y": np.concatenate([2 * x + 1, np.ones(28)])}

def everything(**given):
    assert sorted(given) == ["a", "n", "x", "y"] and given["x"].dtype == np.float32 and given["n"] == 100
    return {"y": only_x(given["x"])["y"] + (np.arange(128) == 7)}

def other(n):
    return {"z": n}

def breaks(n):
    raise KeyError(n)

number = 5
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """two.cu and ref.py in the current folder."""
    (tmp_path / "two.cu").write_text(TWO)
    (tmp_path / "ref.py").write_text(REFERENCE)
    (tmp_path / "beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return "two.cu"


def tried(capsys, *words):
    """Exit code, stdout, stderr."""
    status = main([*words])
    found = capsys.readouterr()
    return status, found.out, found.err


# ---------------------------------------------------------------- list


def test_a_file_is_listed_with_lines_that_run(file, capsys):
    status, out, err = tried(capsys, file)
    assert status == 0 and err == ""
    assert out.startswith("two.cu: 2 kernels\n\nline 3: saxpy(int n, float a, const float* x, float* y)\n")
    assert "line 9: copy(const int* from, int* to, double* sum, int rows, int columns)\n" in out
    lines = [line.strip() for line in out.splitlines() if line.startswith("    python -m minigrad.cudasim")]
    assert lines == [
        "python -m minigrad.cudasim two.cu --kernel saxpy --grid 4 --block 256 n=1000 a=2.0 x=normal:1000 y=zeros:1000",
        "python -m minigrad.cudasim two.cu --kernel copy --grid 2x2 --block 16x16 --shared 16384 from=integers:1024 "
        "to=zeros:1024 sum=zeros:1024 rows=32 columns=32",
    ]
    for line in lines:
        status, out, err = tried(capsys, *shlex.split(line)[3:], "--order", "forward")
        assert status == 0 and "no report" in out, out + err
    answer = json.loads(tried(capsys, file, "--json")[1])
    assert [kernel["name"] for kernel in answer["kernels"]] == ["saxpy", "copy"] and answer["exit"] == 0
    assert answer["kernels"][1]["parameters"][0] == {"type": "const int*", "name": "from"}
    assert answer["kernels"][0]["example"] == lines[0]


def test_guesses_are_of_the_types_of_the_parameters(tmp_path, capsys):
    (tmp_path / "types.cu").write_text(
        "typedef unsigned char uchar;\n__global__ void k(const uchar* a, int2 b, uint c, const int4* d,"
        " const float4* e, const bool* f, const uint8_t* g, float3 h, size_t i, ushort j) {}"
    )
    out = tried(capsys, str(tmp_path / "types.cu"))[1]
    assert re.findall(r"\b[a-j]=[\w\[]+", out.split("--block", 1)[1]) == [
        "a=integers", "b=[1", "c=16", "d=integers", "e=normal", "f=integers", "g=integers", "h=[1", "i=16", "j=16",
    ]  # fmt: skip


def test_guesses_for_structs_and_template_parameters(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("beside.h").write_text(
        "typedef struct { float x; int n[4]; } Point;\ntypedef enum { A } Kind;\ntypedef float real;\n"
    )
    Path("structs.cu").write_text(
        """#include "beside.h"
struct Cell { int a; };
template <typename index_t, class T, bool B> __global__ void k(const Point* p, Point* q, const Cell c, dim3 d, Kind e,
                                                       const real* f, index_t g, const T* h, const index_t* i) {
    if (threadIdx.x < g) q[threadIdx.x] = p[threadIdx.x], q[threadIdx.x].n[0] = c.a;
}
"""
    )
    out = tried(capsys, "structs.cu")[1]
    assert "--template int,float,true" in out
    values = "p=zeros:1000 q=zeros:1000 c=c.npy d=[1000,1,1] e=2.0 f=normal:1000 g=1000 h=normal:1000 i=integers:1000"
    assert "--block 256 " + values.replace("d=[1000,1,1]", "'d=[1000,1,1]'") in out
    np.save("c.npy", np.array([7], np.int32).view("V4")[0])
    words = values.replace("e=2.0", "e=0").replace("q=zeros:1000", "q=empty:1000").split()
    status, out, err = tried(
        capsys, "structs.cu", "--template", "int,float,true", "--grid", "1", "--block", "32", *words
    )
    assert status == 0 and re.search(r"q +\|V20 +1000 +0000000007000000\.\. 0000000007000000\.\.", out), out + err


def test_headers_lie_where_one_says(file, tmp_path, capsys):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "factor.h").write_text("#define FACTOR 3\n")
    text = "__global__ void k(int* y) { y[threadIdx.x] = FACTOR; }\n"
    Path("three.cu").write_text('#include "factor.h"\n' + text)
    words = "three.cu --grid 1 --block 4 y=empty:4".split()
    status, out, err = tried(capsys, *words)
    assert status == 2 and "factor.h.  Their folders: -I FOLDER, or include=[...]" in err
    status, out, err = tried(capsys, *words, "-I", "far")
    assert status == 0 and "3 3 3 3" in out, err
    assert run("three.cu", "k", 1, 4, np.zeros(4, "i4"), include=[tmp_path / "far"])["y"].tolist() == [3] * 4
    assert run('#include "factor.h"\n' + text, "k", 1, 4, np.zeros(4, "i4"), include=["far"])["y"].tolist() == [3] * 4
    status, out, err = tried(capsys, *words, "-I", "nowhere")
    assert status == 2 and err == "nowhere: there is no such folder to look for headers in\n"
    with pytest.raises(ArgumentError, match="include must be a sequence of folders, got far"):
        run("three.cu", "k", 1, 4, np.zeros(4, "i4"), include="far")
    Path("part.cu").write_text(text)
    status, out, err = tried(capsys, "part.cu", *words[1:])
    assert status == 2 and "Nothing here declares FACTOR.  If another file includes this one, run that one." in err
    assert tried(capsys, "part.cu", *words[1:], "-D", "FACTOR=3")[0] == 0


def test_more_shared_memory_is_for_those_who_ask(tmp_path, capsys):
    path = tmp_path / "much.cu"
    path.write_text("__global__ void k(char* y) { extern __shared__ char all[]; all[69999] = 3; y[0] = all[69999]; }")
    words = [str(path), "--grid", "1", "--block", "1", "--shared", "70000", "y=zeros:1"]
    status, out, _ = tried(capsys, *words)
    assert status == 1 and "a block has 49152; more is for those who ask: --max-shared, max_shared=" in out
    assert tried(capsys, *words, "--max-shared", "70000")[0] == 0
    assert tried(capsys, *words, "--max-shared", "69999")[0] == 1
    status, out, _ = tried(capsys, *words, "--max-shared", "300000")
    assert status == 1 and "no GPU gives a block more than 232448" in out
    assert run(path, "k", 1, 1, np.zeros(1, "i1"), shared=70000, max_shared=70000)["y"][0] == 3


def test_which_command_is_meant(file, tmp_path):
    (tmp_path / "relu.cu").write_text("__global__ void my_relu(float* y) { y[0] = 0; }")
    shutil.copy(ROOT / "kernels" / "lrn.cu", tmp_path)
    for words, own in [
        ("kernels/lrn.cu", True),
        ("--mode fast kernels/lrn.cu", True),
        ("lrn", True),
        ("lrn.cu", True),  # has a kernel of ours
        (str(ROOT / "kernels" / "lrn.cu"), True),
        ("relu.cu", False),  # only has its name
        ("lrn.cu --list", False),
        ("lrn.cu --kernel lrn_forward", False),
        ("relu.cu --source two.cu", True),
        ("two.cu", False),
        ("two.cu --case lrn", True),
        ("two.cu n=5", False),
        ("nothing.cu", False),
        ("--help", False),
    ]:
        assert _is_about_own(words.split()) is own, words


# ---------------------------------------------------------------- run


def test_a_run_without_faults(file, capsys):
    status, out, err = tried(capsys, file, *SAXPY)
    assert status == 0 and err == ""
    title, *rest = out.splitlines()[1:]
    assert out.startswith("three\n")  # once
    assert title == "saxpy: grid (2,1,1), block (64,1,1), check mode, threads forward, reversed, random: no report"
    assert rest[1].split() == "y float32 128 1 3 5 7 ... 1 199 78.344 100 of 128".split()
    assert rest[2:] == ["y: 28 of 128 elements were not written, the first is y[100]"]
    status, out, _ = tried(capsys, file, *SAXPY, "--mode", "fast", "--order", "random", "--seed", "5")
    assert status == 0 and "fast mode, threads random: no fault" in out
    assert "global load" in tried(capsys, file, *SAXPY, "--counters")[1]


def test_a_report_is_exit_1(file, capsys):
    words = [word if word != "n=100" else "n=101" for word in SAXPY]
    status, out, err = tried(capsys, file, *words)
    assert status == 1 and err == ""
    assert "\ntwo.cu:5: OOB-GLOBAL: block (1,0,0) thread (36,0,0): reads 4 bytes at byte 400 of x" in out
    status, out, err = tried(capsys, file, *words, "--json")
    answer = json.loads(out)
    assert status == answer["exit"] == 1 and answer["printed"] == "three\n" and err == ""
    assert answer["reports"][0]["kind"] == "OOB-GLOBAL" and answer["reports"][0]["line"] == 5
    assert "outputs" not in answer


def test_json_and_save(file, capsys):
    status, out, err = tried(
        capsys, file, *SAXPY, "--json", "--save", "out.npz", "--counters", "--expect", "ref.py:saxpy"
    )
    answer = json.loads(out)
    assert status == answer["exit"] == 0 and err == ""
    assert answer["printed"] == "three\n" and answer["reports"] == [] and answer["differences"] == []
    assert answer["kernel"] == "saxpy" and answer["grid"] == [2, 1, 1] and len(answer["orders"]) == 3
    y = answer["outputs"]["y"]
    assert (y["dtype"], y["shape"], y["written"], y["max"]) == ("float32", [128], 100, "199")
    assert {(row["line"], row["operation"]) for row in answer["counters"]} == {(5, "load"), (5, "store")}
    with np.load("out.npz") as saved:
        assert list(saved) == ["y"] and saved["y"][99] == 199
    assert tried(capsys, file, *SAXPY, "--save", "no/such/out.npz")[0] == 2
    answer = json.loads(tried(capsys, file, "n=1", "--json")[1])
    assert answer["exit"] == 2 and "has several kernels" in answer["error"]


@pytest.mark.parametrize("function, status", [("saxpy", 0), ("only_x", 0), ("everything", 1)])
def test_expect(file, capsys, function, status):
    got, out, _ = tried(capsys, file, *SAXPY, "--expect", f"ref.py:{function}")
    assert got == status
    last = out.splitlines()[-1]
    if status:
        assert last.startswith("WRONG: y[7]: 15.0, expected 16.0 (1 of 128 elements differ by more than the tolerance")
        assert tried(capsys, file, *SAXPY, "--expect", f"ref.py:{function}", "--tolerance", "0.1")[0] == 0
    else:
        assert last == f"as ref.py:{function} says: y"


@pytest.mark.parametrize(
    "words, message",
    [
        ("ref.py", "is written FILE.py:FUNCTION"),
        ("no.py:saxpy", "no.py: there is no such file"),
        ("ref.py:nothing", "ref.py has no function nothing"),
        ("ref.py:number", "ref.py has no function number"),
        ("ref.py:other", "other returned z; outputs are y"),
        ("ref.py:breaks", "ref.py:breaks failed: KeyError: 100"),
        ("two.cu:saxpy", "two.cu cannot be run: SyntaxError"),
    ],
)
def test_an_expectation_that_cannot_be_tried(file, capsys, words, message):
    status, out, err = tried(capsys, file, *SAXPY, "--expect", words)
    assert status == 2 and message in err


@pytest.mark.parametrize(
    "words, message",
    [
        ("n=1", "two.cu has several kernels: say --kernel saxpy or copy"),
        ("--kernel nothing n=1", "two.cu has no kernel 'nothing'; it has saxpy, copy"),
        (
            "--kernel saxpy n=1 z=2",
            "saxpy(int n, float a, const float* x, float* y) has no parameter z, and needs a, x, y",
        ),
        ("--kernel saxpy n=1 n=2", "n is given twice"),
        ("--kernel saxpy 5", "5: arguments are written NAME=VALUE"),
        (
            "--kernel saxpy n=1 a=1 x=ones:1 y=ones:1",
            "--grid is missing.  For example:\npython -m minigrad.cudasim two.cu",
        ),
        ("--kernel saxpy n=1 a=1 x=ones:1 y=ones:1 --grid 1 --block 1,2,3,4", "--block takes one to three sizes"),
        (
            "--kernel saxpy n=1 a=1 x=ones:1 y=5 --grid 1 --block 1",
            "parameter 4, `float* y`, wants an array: y=5 is none",
        ),
        (
            "--kernel saxpy n=x a=1 x=ones:1 y=ones:1 --grid 1 --block 1",
            "parameter 1, `int n`, wants a number, got n=x",
        ),
        ("--kernel saxpy n=1 a=1 x=ones:1 y=no.npy --grid 1 --block 1", "y: no.npy cannot be read: No such file"),
        (
            "--kernel saxpy n=1 a=1 x=ones:1 y=ones:1 --grid 1 --block 1 --trace thread=1",
            "there is no thread (1, 0, 0)",
        ),
        (
            "--kernel saxpy n=1 a=1 x=ones:1 y=ones:1 --grid 1 --block 1 --trace thread=x",
            "--trace thread=x: is written",
        ),
    ],
)
def test_what_cannot_be_tried_is_exit_2(file, capsys, words, message):
    status, out, err = tried(capsys, file, *words.split())
    assert status == 2 and message in err and out == ""


def test_a_file_that_is_none(file, capsys, tmp_path):
    assert tried(capsys, "nothing.cu") == (2, "", "nothing.cu: there is no such file\n")
    (tmp_path / "host.cu").write_text("int main() { return 0; }\n")
    status, out, err = tried(capsys, "host.cu")
    assert status == 2 and "kernel" in err and out == ""
    (tmp_path / "two.cu").write_text(TWO.replace("a * x", "nonsense * x"))
    status, out, err = tried(capsys, file, *SAXPY)
    assert status == 2 and re.search(r"^two.cu:5:\d+: error: .*nonsense", err, re.MULTILINE)


def test_a_trace(file, capsys):
    status, out, _ = tried(capsys, file, "--trace", "thread=5", "block=1", *SAXPY)
    assert status == 0
    assert out.splitlines()[-5:-1] == [
        "line      what   where  value",
        "two.cu:5  load   x[69]  69.0",
        "two.cu:5  load   y[69]  1.0",
        "two.cu:5  store  y[69]  139.0",
    ]
    # Arguments that stand behind the option are the kernel's.
    words = [*SAXPY[:6], "--trace", "thread=5,0,0", *SAXPY[6:], "--trace-steps", "1", "--json"]
    answer = json.loads(tried(capsys, file, *words)[1])
    assert [step["where"] for step in answer["trace"]["steps"]] == ["x[5]"] and answer["trace"]["cut"] == 2
    status, out, _ = tried(
        capsys, file, *[w if w != "n=100" else "n=101" for w in SAXPY], "--trace", "thread=36", "block=1"
    )
    assert status == 1 and "two.cu:5  load  x[100] (outside)" in out and "OOB-GLOBAL" in out


def gdb_line(capsys, *words):
    status, out, _ = tried(capsys, *words, "--gdb")
    assert status == 0 and out.count("\n") == 1
    return shlex.split(out)


def test_a_line_for_gdb(file, capsys):
    words = gdb_line(capsys, file, *SAXPY, "--trace", "thread=5", "block=1")
    assert words[0] == "gdb" and words[-2:] == ["--time-limit", "inf"]
    stop = next(word for word in words if word.startswith("break"))
    assert stop.startswith("break saxpy if threadIdx.x == 5 && ") and "blockIdx.x == 1" in stop
    program = words[words.index("minigrad.cudasim") + 1 :]
    assert program[: len(SAXPY) + 1] == [file, *SAXPY] and "--trace" not in program
    status, out, _ = tried(capsys, *program)
    assert status == 0 and "saxpy: grid (2,1,1), block (64,1,1), debug mode, threads forward: no fault" in out
    folder = next(word for word in words if word.startswith("directory ")).removeprefix("directory ")
    assert [path.read_text() for path in Path(folder).iterdir()] == [TWO]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_stops_in_the_kernel(file, capsys):
    words = gdb_line(capsys, file, *SAXPY, "--trace", "thread=5", "block=1")
    asks = ["info args", "next", "next", "print i", "print threadIdx.x + blockIdx.x * blockDim.x", "kill"]
    i = words.index("--args")
    words[i:i] = [word for ask in asks for word in ("-ex", ask)]
    words[1:1] = ["-batch", "-iex", "set auto-load off"]
    out = subprocess.run(words, capture_output=True, text=True, timeout=300).stdout
    assert "Breakpoint 1, " in out and "\nn = 100\na = 2\n" in out
    assert "$1 = 69\n$2 = 69\n" in out and "if (i < n) y[i] = a * x[i] + y[i];" in out


def test_macros_and_time_limit(file, capsys, tmp_path):
    (tmp_path / "spin.cu").write_text("__global__ void spin(volatile int* y) { while (*y == WAIT) {} }")
    words = "spin.cu --grid 1 --block 1 y=[3]".split()
    assert tried(capsys, *words, "-D", "WAIT=4")[0] == 0
    status, out, _ = tried(capsys, *words, "-D", "WAIT=3", "--time-limit", "0.2")
    assert status == 1 and "TIME-LIMIT" in out
    assert tried(capsys, *words)[0] == 2
    with pytest.raises(SystemExit):
        main([*words, "--time-limit", "0"])


# ---------------------------------------------------------------- values


WEIGH = """
struct Pair { int a, b; };
__constant__ float taps[3] = {1, 1, 1}, scale = 1;
__device__ Pair pair;
__global__ void weigh(const float* x, float* y) {
    int t = threadIdx.x;
    y[t] = x[t] * taps[t] * scale + pair.b;
}
"""


def test_variables_of_the_file(capsys, tmp_path):
    file = tmp_path / "weigh.cu"
    file.write_text(WEIGH)
    words = [str(file), *"--grid 1 --block 3 x=ones:3 y=empty:3".split()]
    status, out, _ = tried(
        capsys, *words, "--variable", "taps=[1,2,4]", "--variable", "scale=2.5", "--order", "forward"
    )
    assert status == 0 and "2.5 5 10 " in out
    status, out, _ = tried(capsys, *words, "--order", "forward")
    assert status == 0 and "1 1 1 " in out
    np.save(tmp_path / "wide.npy", np.ones(3))
    for variable, message in [
        ("taps=[1,2]", "variable taps has 12 bytes, got float32 (2,)"),
        (f"taps={tmp_path / 'wide.npy'}", "variable `float taps` wants float32, got float64"),
        ("taps=empty:3", "variable `float taps` is never empty"),
        ("pair=[1,2]", "variable pair has elements of Pair: give a .npy file"),
        ("nothing=1", "--variable nothing: the file has no such variable; it has scale, taps, pair"),
    ]:
        status, _, error = tried(capsys, *words, "--variable", variable)
        assert status == 2 and message in error, error


def parameter(declared, type_):
    return Parameter(1, declared, "x", type_)


def made(text, declared="const float*", type_="const float32*", seed=0):
    return Value("x", text, seed).of(parameter(declared, type_))


def test_arrays_from_words(tmp_path):
    assert made("zeros:2x3").tolist() == [[0] * 3] * 2 and made("ones:2").dtype == np.float32
    assert made("arange:2x2", "int*", "int32*").tolist() == [[0, 1], [2, 3]]
    assert made("[1,2.5]").tolist() == [1, 2.5] and made("[[1],[2]]", "short*", "int16*").shape == (2, 1)
    assert made("null") is None and isinstance(made("empty:3"), Empty) and made("empty:3").shape == (3,)
    x = made("normal:10000")
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05 and (x == made("normal:10000")).all()
    assert (x != made("normal:10000", seed=1)).any()
    u = made("uniform:1000:5:6", "double*", "float64*")
    assert u.dtype == np.float64 and 5 <= u.min() < 5.1 and 5.9 < u.max() <= 6
    assert set(made("integers:1000", "unsigned char*", "uint8*")) == set(range(10))
    assert set(made("integers:1000:-1:2")) == {-1, 0, 1}
    assert made("normal:5", "float4*", "V16*").shape == (5, 4)
    assert made("zeros:5", "Pair*", "V24*").dtype == np.dtype("V24")
    np.save(tmp_path / "a.npy", np.float64([1, 2]))
    assert made(f"{tmp_path}/a.npy").dtype == np.float64  # which `run` refuses, in its words
    for text, type_, value in [
        ("5", "int32", 5), ("-2.5", "float32", -2.5), ("true", "bool", True), ("inf", "float32", np.inf),
        ("0x10", "int32", 16), ("[1,2]", "V8", [1, 2]),
    ]:  # fmt: skip
        assert made(text, "T", type_) == value


@pytest.mark.parametrize(
    "text, declared, type_, message",
    [
        ("normal", "float*", "float32*", "wants an array: x=normal is none"),
        ("normal:", "float*", "float32*", "a shape is written 1000 or 30x40"),
        ("normal:3y4", "float*", "float32*", "a shape is written"),
        ("normal:-3", "float*", "float32*", "a shape is written"),
        ("normal:3:1:2", "float*", "float32*", "only uniform and integers have limits"),
        ("uniform:3:1", "float*", "float32*", "two of them"),
        ("uniform:3:a:b", "float*", "float32*", "a:b are no limits"),
        ("uniform:3:2:1", "float*", "float32*", "LOW must be less than HIGH"),
        ("integers:3:5:5", "int*", "int32*", "LOW must be less than HIGH"),
        ("normal:3", "int*", "int32*", "integers:3 makes such"),
        ("arange:300", "unsigned char*", "uint8*", "0 to 299 do not fit uint8"),
        ("zeros:99999999999", "float*", "float32*", "more than 8 GB"),
        ("[1,2.5]", "int*", "int32*", "not every number of [1, 2.5] fits"),
        ("[1,300]", "unsigned char*", "uint8*", "fits"),
        ("[1,1e39]", "float*", "float32*", "fits"),
        ("[1,[2,3]]", "float*", "float32*", "wants numbers in a list"),
        ("['a']", "float*", "float32*", "wants numbers in a list"),
        ("[1,", "float*", "float32*", "wants a number, got x=[1,"),
        ("zeros:3", "void*", "void*", "does not say what its elements are"),
        ("ones:3", "Pair*", "V24*", "has records as elements"),
        ("__import__('os')", "int", "int32", "wants a number"),
    ],
)
def test_words_that_make_no_array(text, declared, type_, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        made(text, declared, type_)


# ---------------------------------------------------------------- what others read


def test_the_example_of_the_help_works_as_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    examples = [line.strip() for line in help_text.splitlines() if line.startswith("    python -m minigrad.cudasim ")]
    assert len(examples) == 2 and command.EXAMPLE in examples
    for example in examples:
        status, out, err = tried(capsys, *shlex.split(example)[3:])
        assert status == 0 and "row_sums" in out and err == "", err


def test_the_homework_fails_with_its_mistake_and_passes_when_mended(tmp_path):
    for name in ("row_sums.cu", "solution.cu", "test_row_sums.py"):
        shutil.copy(HOMEWORK / name, tmp_path)
    homework = runpy.run_path(str(tmp_path / "test_row_sums.py"))["test_row_sums"]
    line = next(i for i, text in enumerate(open(tmp_path / "row_sums.cu"), 1) if "part[t] += part[t + half]" in text)
    cases = homework.pytestmark[0].args[1]
    for case in cases:
        with pytest.raises(KernelError) as caught:
            homework(*case)
        assert re.search(
            rf"row_sums.cu:{line}: RACE: .*shared array 'part'.*no barrier lies between", str(caught.value)
        )
    shutil.copy(tmp_path / "solution.cu", tmp_path / "row_sums.cu")
    for case in cases:
        homework(*case)
    text = (tmp_path / "solution.cu").read_text()
    (tmp_path / "row_sums.cu").write_text(text.replace("c = t;", "c = t + 1;"))
    with pytest.raises(AssertionError, match=r"sums\[0\]: .*expected .*\(3 of 3 elements differ"):
        homework(*cases[0])


# ---------------------------------------------------------------- docs/cudasim.md

PAGE = (ROOT / "docs" / "cudasim.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_shows_what_happens(tmp_path, monkeypatch, capsys):
    """All of it, from its top to its end, in one folder: files, commands, programs and a test."""
    monkeypatch.chdir(tmp_path)
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["", "cuda", "console", "console", "python", "console", "console", "python", "text", "python"]
    programs = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "sums.cu").write_text(BLOCKS[1][1])
    (tmp_path / "reference.py").write_text(programs[0])
    for text in (text for kind, text in BLOCKS if kind == "console"):
        shown = ""
        for line in text.splitlines():
            if not line.startswith("$ "):
                continue
            shown += line + "\n"
            if line.startswith("$ python -m minigrad.cudasim "):
                main(shlex.split(line)[4:])
                shown += capsys.readouterr().out
            else:
                subprocess.run(line.removeprefix("$ "), shell=True, check=True)
        assert shown == text
    exec(compile(programs[1], "docs/cudasim.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == next(text for kind, text in BLOCKS if kind == "text")
    (tmp_path / "test_sums.py").write_text(programs[2])
    runpy.run_path("test_sums.py")["test_block_sums"]()


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    "words, message",
    [
        ("--seed -1", r"a whole number from 0 is wanted, got '-1'"),
        ("--tolerance -1", r"a number from 0 is wanted, got '-1'"),
        ("--tolerance nan", r"a number from 0 is wanted, got 'nan'"),
    ],
)
def test_options_that_are_no_numbers(file, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main([file, *SAXPY, *words.split()])
    assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--save none/y.npz", r"--save none/y\.npz: give a file in a folder that is there"),
        ("--save .", r"--save \.: give a file in a folder"),
        ("--trace thread=1 thread=2", r"--trace follows one thread: thread is given twice"),
        ("--trace thread=1 --trace-steps 9999999999", r"a trace keeps 1 to 1000000 steps, got 9999999999"),
        ("--variable taps=1", r"--variable taps: the file has no such variable; it has none"),
        ("--expect ref.py:leaves", r"--expect: ref\.py:leaves failed: SystemExit: 3"),
        ("--expect ref.py:forgets", r"--expect: forgets returned nothing"),
    ],
)
def test_it_is_said_before_anything_runs(file, capsys, monkeypatch, words, message):
    with open("ref.py", "a") as more:
        more.write("\ndef leaves(n):\n    raise SystemExit(3)\n\ndef forgets(n):\n    pass\n")
    monkeypatch.setattr("minigrad.cudasim.running.Launch.run", lambda *_: pytest.fail("the kernel ran"))
    status, out, err = tried(capsys, file, *SAXPY, *words.split())
    assert status == 2 and out == "" and re.search(message, err), err


def test_arrays_that_do_not_fit_are_refused(file, capsys, monkeypatch):
    monkeypatch.setattr("minigrad.cudasim.running.memory_left", lambda: 10_000)
    status, out, err = tried(capsys, file, *SAXPY)
    assert status == 2 and err == (
        "saxpy: the arrays take 0.00 GB.  Their copies take up to 5 times that, and who touched what 8 times: "
        "0.00 GB are left: give smaller arrays, or take mode fast\n"
    )
    assert tried(capsys, file, *SAXPY, "--mode", "fast")[0] == 0
    monkeypatch.setattr("minigrad.cudasim.running.memory_left", lambda: None)
    assert tried(capsys, file, *SAXPY)[0] == 0
    monkeypatch.setattr("minigrad.cudasim.values.memory_left", lambda: 1000)
    status, out, err = tried(capsys, file, *SAXPY)
    assert status == 2 and err == "x=arange:100: to make it takes 0.00 GB, 0.00 GB are left\n"


def test_memory_that_is_left(tmp_path):
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1])
    assert 0 < memory_left() <= 1024 * total
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 2000\n")  # files that are cached make room
    (tmp_path / "memory.max").write_text("4000\n")
    assert memory_left(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_left(tmp_path) > 4000


def test_ctrl_c_is_one_line(tmp_path):
    (tmp_path / "spin.cu").write_text(
        '__global__ void spin(int* y) { printf("on\\n"); while (y[0] == 0) y[1] += 1, y[1] -= 1; }'
    )
    words = [sys.executable, "-m", "minigrad.cudasim", "spin.cu", "--grid", "1", "--block", "1", "y=zeros:2"]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.Popen([*words, "--time-limit", "60"], cwd=tmp_path, env=here, stderr=subprocess.PIPE, text=True)
    try:
        library = Path(f"/proc/{ran.pid}/maps")
        for _ in range(600):  # until the kernel is loaded
            if re.search(r"/[0-9a-f]{24}\.so", library.read_text()):
                break
            time.sleep(0.05)
        ran.send_signal(signal.SIGINT)
        assert ran.communicate(timeout=60)[1] == "\ninterrupted\n" and ran.returncode == 130
    finally:
        ran.kill()
