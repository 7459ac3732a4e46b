"""Checkpoints: round trips, other tools' files, atomic saves, damage, files that are not checkpoints."""

import io
import json
import os
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from minigrad import CheckpointError, Tensor, checkpoint, nn

safetensors = pytest.importorskip("safetensors", reason="safetensors: pip install safetensors")
from safetensors.numpy import load_file, save_file  # noqa: E402


def arrays():
    random = np.random.default_rng(0)
    return {
        "weight": random.standard_normal((3, 4)).astype(np.float32),
        "double": random.standard_normal(5),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
    }


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        np.testing.assert_array_equal(a[name], b[name])


def refused_or_same(path, before, metadata):
    """Whether a damaged file is refused; one that is not holds what it held before."""
    try:
        loaded, found = checkpoint.load(path)
    except CheckpointError:
        return True
    same(loaded, before)
    assert found == metadata
    return False


def test_round_trip(tmp_path):
    metadata = {
        "name": "tiny",
        "epoch": 3,
        "rates": [0.1, 1e-5],
        "nested": {"a": None, "b": True},
        "digits": "3",
    }
    checkpoint.save(tmp_path / "a.safetensors", arrays(), metadata)
    loaded, meta = checkpoint.load(tmp_path / "a.safetensors")
    same(loaded, arrays())
    assert meta == metadata
    checkpoint.save(str(tmp_path / "b"), arrays())
    loaded, meta = checkpoint.load(str(tmp_path / "b"))
    same(loaded, arrays())
    assert meta == {} and sorted(os.listdir(tmp_path)) == ["a.safetensors", "b"]


def test_tensors_and_odd_memory(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    given = {
        "turned": x.T,
        "gaps": x[:, ::2],
        "backwards": x[::-1],
        "swapped": x.astype(">f8"),
        "tensor": Tensor(x),
    }
    checkpoint.save(tmp_path / "a", given)
    loaded, _ = checkpoint.load(tmp_path / "a")
    for name, value in given.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(value), err_msg=name)
        loaded[name] += 1  # writable


def test_a_model_and_other_tools(tmp_path):
    model, other = (nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 2)) for _ in range(2))
    checkpoint.save(tmp_path / "m", model.state_dict(), {"format": "pt"})
    same(load_file(tmp_path / "m"), model.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "m")[0])
    same(other.state_dict(), model.state_dict())
    save_file(arrays(), tmp_path / "theirs", {"made": "elsewhere"})
    loaded, meta = checkpoint.load(tmp_path / "theirs")
    same(loaded, arrays())
    assert meta == {"made": "elsewhere"}


class Broken(io.FileIO):
    """A file that takes half of what it is to take, and fails then."""

    failure: BaseException = OSError("disk full")

    def write(self, content):
        super().write(memoryview(content)[: len(content) // 2])
        raise self.failure


def fail(*args, **kwargs):
    raise OSError("disk full")


@pytest.mark.parametrize("where, broken", [("files.open", Broken), ("os.replace", fail), ("os.fsync", fail)])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, where, broken):
    path = tmp_path / "a"
    checkpoint.save(path, arrays(), {"epoch": 1})
    monkeypatch.setattr(f"minigrad.checkpoint.weights.{where}", broken, raising=False)
    with pytest.raises(CheckpointError, match="checkpoint: cannot write .*a: disk full"):
        checkpoint.save(path, {"weight": np.zeros(3)}, {"epoch": 2})
    monkeypatch.undo()
    loaded, meta = checkpoint.load(path)
    same(loaded, arrays())
    assert meta == {"epoch": 1} and os.listdir(tmp_path) == ["a"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    checkpoint.save(path, arrays())
    monkeypatch.setattr(Broken, "failure", KeyboardInterrupt())
    monkeypatch.setattr(checkpoint.files, "open", Broken, raising=False)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"weight": np.zeros(3)})
    monkeypatch.undo()
    same(checkpoint.load(path)[0], arrays())
    assert os.listdir(tmp_path) == ["a"]


def test_nowhere_to_write(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write .*missing"):
        checkpoint.save(tmp_path / "missing" / "a", arrays())


def test_refused_values(tmp_path):
    for value in (np.array(["text"]), np.array([1 + 2j]), np.array([None]), np.array([1], "M8[s]")):
        with pytest.raises(CheckpointError, match="'bad' must be an array of numbers, got"):
            checkpoint.save(tmp_path / "a", {"bad": value})
    with pytest.raises(CheckpointError, match="metadata must be what JSON can hold"):
        checkpoint.save(tmp_path / "a", {}, {"model": object()})
    with pytest.raises(CheckpointError, match="metadata keys must be strings"):
        checkpoint.save(tmp_path / "a", {}, {3: "x"})
    for key in ("minigrad.json", "minigrad.checksum", "minigrad.new"):
        with pytest.raises(CheckpointError, match="metadata keys must be strings that do not begin with 'minigrad.'"):
            checkpoint.save(tmp_path / "a", {}, {key: "x"})
    for name in (3, "__metadata__", "half\ud800"):
        with pytest.raises(CheckpointError, match="names must be text other than '__metadata__', got"):
            checkpoint.save(tmp_path / "a", {name: np.ones(2)})
    with pytest.raises(CheckpointError, match="metadata must be text that UTF-8 can hold"):
        checkpoint.save(tmp_path / "a", {}, {"file": "half\ud800"})
    for state, metadata in (([1], None), ({}, [1])):
        with pytest.raises(CheckpointError, match="must be dictionaries by name, got"):
            checkpoint.save(tmp_path / "a", state, metadata)
    assert os.listdir(tmp_path) == []


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file .*nothing"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="there is no file"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / "good", arrays())
    whole = (tmp_path / "good").read_bytes()
    for name, content in {
        "cut": whole[:-5],
        "short": whole[:4],
        "empty": b"",
        "text": b"these are not the weights you are looking for" * 10,
        "header": whole[:20] + b"#" + whole[21:],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name} \({len(content)} bytes\) is no readable safetensors file"):
            checkpoint.load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"there is no file .*\\x1b\[31m"):
        checkpoint.load(tmp_path / "red\x1b[31m")


def test_no_arrays_at_all(tmp_path):
    for metadata in ({}, {"epoch": 3}, {"text": "x"}):
        checkpoint.save(tmp_path / "a", {}, metadata)
        assert checkpoint.load(tmp_path / "a") == ({}, metadata)
        assert load_file(tmp_path / "a") == {}


# ---------------------------------------------------------------- the checksum


def test_every_flipped_bit_is_noticed(tmp_path):
    """Every third, to be quick: all eight bits of bytes everywhere, each of them with a meaning in our own files."""
    path = tmp_path / "a"
    checkpoint.save(path, {"w": np.array([1.5, -2], np.float32), "flags": np.array([True])}, {"k": 1, "classes": "dog"})
    arrays_before, metadata = checkpoint.load(path)
    whole = bytearray(path.read_bytes())
    refused = 0
    bits = range(0, 8 * len(whole), 3)
    for i in bits:
        whole[i // 8] ^= 1 << i % 8
        path.write_bytes(whole)
        whole[i // 8] ^= 1 << i % 8
        refused += refused_or_same(path, arrays_before, metadata)
    assert refused == len(bits)


def test_damage_says_so(tmp_path):
    path = tmp_path / "a"
    checkpoint.save(path, arrays())
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=f"^checkpoint: {path}: damaged: its checksum should be minigrad:crc32:"):
        checkpoint.load(path)


def test_the_checksum_is_what_the_documentation_says(tmp_path):
    checkpoint.save(tmp_path / "a", arrays(), {"classes": "dog", "epoch": 3})
    theirs = load_file(tmp_path / "a")
    with safetensors.safe_open(tmp_path / "a", framework="numpy") as file:
        texts = file.metadata()
    kinds = {"float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL", "uint8": "U8"}
    table = [[name, kinds[str(array.dtype)], list(array.shape)] for name, array in sorted(theirs.items())]
    stated = texts.pop("minigrad.checksum")
    assert texts == {"classes": "dog", "minigrad.json": '{"epoch": 3}'}
    text = json.dumps([table, texts], sort_keys=True, separators=(",", ":")).encode()
    content = text + b"".join(array.tobytes() for _, array in sorted(theirs.items()))
    assert stated == f"minigrad:crc32:{zlib.crc32(content):08x}"


def test_a_copy_by_another_tool_keeps_the_checksum_and_a_change_does_not(tmp_path):
    checkpoint.save(tmp_path / "ours", arrays(), {"epoch": 3})
    theirs = load_file(tmp_path / "ours")
    with safetensors.safe_open(tmp_path / "ours", framework="numpy") as file:
        texts = file.metadata()
    save_file(dict(reversed(theirs.items())), tmp_path / "copy", dict(reversed(texts.items())))
    loaded, meta = checkpoint.load(tmp_path / "copy")
    same(loaded, arrays())
    assert meta == {"epoch": 3}
    changes = {
        "value": ({**theirs, "double": theirs["double"] + 1}, texts),
        "name": ({("Double" if name == "double" else name): array for name, array in theirs.items()}, texts),
        "shape": ({**theirs, "weight": theirs["weight"].reshape(4, 3)}, texts),
        "dtype": ({**theirs, "bytes": theirs["bytes"].view(np.int8)}, texts),
        "fewer": ({name: array for name, array in theirs.items() if name != "empty"}, texts),
        "metadata": (theirs, {**texts, "minigrad.json": '{"epoch": 4}'}),
        "one more": (theirs, {**texts, "by": "x"}),
        "key": (theirs, {key.replace("grad.", "grae."): text for key, text in texts.items()}),
        "end of the key, and the checksum": (theirs, {"minigrad.checksun": "x"}),
    }
    for what, (state, metadata) in changes.items():
        save_file(state, tmp_path / "changed", metadata)
        with pytest.raises(CheckpointError, match="damaged: its checksum"):
            checkpoint.load(tmp_path / "changed")
            pytest.fail(what)
    save_file(theirs, tmp_path / "none", {"minigrad.json": '{"epoch": 4}'})  # as earlier versions wrote them
    assert checkpoint.load(tmp_path / "none")[1] == {"epoch": 4}


EARLIER = (
    b'\xc0\x01\x00\x00\x00\x00\x00\x00{"__metadata__":{"preset":"paper","minigrad.json":"{\\"epoch\\": 3, '
    b'\\"classes\\": [\\"dog\\", \\"K\\\\u00e4fer\\"]}","minigrad.checksum":"minigrad:crc32:dd71d520"},"count":'
    b'{"dtype":"I64","shape":[],"data_offsets":[0,8]},"empty":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},"w":'
    b'{"dtype":"F32","shape":[1,3],"data_offsets":[8,20]},"half":{"dtype":"F16","shape":[2],"data_offsets":[20,24]},"flags":'
    b'{"dtype":"BOOL","shape":[3],"data_offsets":[24,27]}}    \x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0?\x00\x00'
    b"\x00\xc0\x00\x00\x80>\x00<\x00\xb8\x01\x00\x01"
)


def test_a_file_that_an_earlier_version_wrote(tmp_path):
    """By our own writer, before the safetensors library did it: the checksum is the same."""
    (tmp_path / "a").write_bytes(EARLIER)
    loaded, metadata = checkpoint.load(tmp_path / "a")
    expected = {
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "w": np.array([[1.5, -2, 0.25]], np.float32),
        "half": np.array([1, -0.5], np.float32),
        "flags": np.array([True, False, True]),
    }
    same(loaded, expected)
    assert list(loaded) == list(expected)
    assert metadata == {"preset": "paper", "epoch": 3, "classes": ["dog", "Käfer"]}
    checkpoint.save(tmp_path / "b", {**expected, "half": expected["half"].astype(np.float16)}, metadata)
    assert b"minigrad:crc32:dd71d520" in (tmp_path / "b").read_bytes()
    (tmp_path / "a").write_bytes(EARLIER.replace(b"\xc0?", b"\xc1?"))
    with pytest.raises(CheckpointError, match="damaged: its checksum"):
        checkpoint.load(tmp_path / "a")


# ---------------------------------------------------------------- types


def test_half_floats_come_as_float32(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import save_file as save_torch

    # All 65,536 bit patterns of each type.
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    state = {"bf": patterns.view(torch.bfloat16).reshape(256, 256), "half": patterns.clone().view(torch.float16)}
    save_torch(state, tmp_path / "a")
    loaded, _ = checkpoint.load(tmp_path / "a")
    same(loaded, {name: tensor.float().numpy() for name, tensor in state.items()})


def test_float16_goes_in_and_comes_back_as_float32(tmp_path):
    checkpoint.save(tmp_path / "a", {"half": np.array([1, -0.5, 65504], np.float16)})
    same(checkpoint.load(tmp_path / "a")[0], {"half": np.array([1, -0.5, 65504], np.float32)})
    assert load_file(tmp_path / "a")["half"].dtype == np.float16


def test_whole_numbers_are_no_weights(tmp_path):
    model = nn.Sequential(a=nn.Linear(3, 4))
    before = model.state_dict()
    for kind in (np.int64, np.uint8, np.int8, np.bool_, np.complex64):
        state = {"a.weight": np.ones((4, 3), kind), "a.bias": np.ones(4, np.float32)}
        with pytest.raises(CheckpointError, match=f"wrong type: a.weight is {np.dtype(kind)}, the model has float32"):
            model.load_state_dict(state)
    same(model.state_dict(), before)
    model.load_state_dict({"a.weight": np.ones((4, 3), np.float16), "a.bias": np.ones(4)})  # floats of any width


# ---------------------------------------------------------------- files from anywhere


def raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "no object": b"[]",
    "text": b'"x"',
    "nothing": b"",
    "no UTF-8": b'{"\xff": 1}',
    "deep": b"[" * 100_000,
    "long number": b'{"w": ' + b"9" * 10_000 + b"}",
    "twice the same name": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "entry no object": {"w": 3},
    "no dtype": {"w": {"shape": [1], "data_offsets": [0, 4]}},
    "dtype no text": {"w": entry(dtype=3)},
    "shape no list": {"w": entry(shape=1)},
    "shape of text": {"w": entry(shape=["1"])},
    "shape of floats": {"w": entry(shape=[1.0])},
    "shape of bools": {"w": entry(shape=[True])},
    "negative shape": {"w": entry(shape=[-1])},
    "two negative": {"w": entry(shape=[-1, -1])},
    "terabytes": {"w": entry(shape=[1 << 40], end=4 << 40)},
    "terabytes in 4": {"w": entry(shape=[1 << 40])},
    "overflow to 0": {"w": entry(shape=[1 << 32, 1 << 32], end=0)},
    "overflow to 4": {"w": entry(shape=[(1 << 62) + 1])},
    "nothing, but wide": {"w": entry(shape=[0, 1 << 62], end=0), "v": entry()},
    "nothing, but wider than numbers": {"w": entry(shape=[0, 1 << 70], end=0), "v": entry()},
    "65 axes": {"w": entry(shape=[1] * 65)},
    "three offsets": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}},
    "offsets turned": {"w": entry(begin=4, end=0)},
    "negative offset": {"w": entry(begin=-4, end=0)},
    "offset no number": {"w": entry(end="4")},
    "overlap": {"w": entry(), "v": entry()},
    "half overlap": {"w": entry("U8", [3], 0, 3), "v": entry("U8", [3], 1, 4)},
    "a name of 5000 letters that acts on terminals": {"\x1b[31m\n" + "n" * 5000: entry("U8", [3], 1, 4)},
    "gap before": {"w": entry("U8", [3], 1, 4)},
    "gap behind": {"w": entry("U8", [3], 0, 3)},
    "gap between": {"w": entry("U8", [1], 0, 1), "v": entry("U8", [2], 2, 4)},
    "beyond the end": {"w": entry("F64", [1], 0, 8)},
    "metadata a list": {"__metadata__": ["x"], "w": entry()},
    "metadata null": {"__metadata__": None, "w": entry()},
    "metadata of numbers": {"__metadata__": {"x": 1}, "w": entry()},
    "minigrad.json cut": {"__metadata__": {"minigrad.json": "{"}, "w": entry()},
    "minigrad.json a list": {"__metadata__": {"minigrad.json": "[1]"}, "w": entry()},
    "minigrad.json null": {"__metadata__": {"minigrad.json": "null"}, "w": entry()},
    "minigrad.json deep": {"__metadata__": {"minigrad.json": "[" * 100_000}, "w": entry()},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_wrong(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"^checkpoint: .* is no readable safetensors file: .+") as caught:
        checkpoint.load(raw(tmp_path / "a", HEADERS[name], b"\x00\x00\x80\x3f"))
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_a_header_longer_than_the_file(tmp_path):
    for length in (3, 1 << 20, 1 << 62, (1 << 64) - 1):
        (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(CheckpointError, match=f"its header would have {length} bytes"):
            checkpoint.load(tmp_path / "a")


def test_what_is_too_large(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes((100_000_001).to_bytes(8, "little"))
    os.truncate(tmp_path / "a", 200_000_000)  # a hole: it takes no room
    with pytest.raises(CheckpointError, match="its header would have 100000001 bytes"):
        checkpoint.load(tmp_path / "a")
    with monkeypatch.context() as smaller:
        smaller.setattr(checkpoint.weights, "_LONGEST_HEADER", 1000)
        with pytest.raises(CheckpointError, match="names and metadata of 10.. bytes, at most 1000 fit"):
            checkpoint.save(tmp_path / "b", {}, {"x": "y" * 950})

    def empty(*_):
        raise MemoryError

    checkpoint.save(tmp_path / "b", {"w": np.ones(1 << 18, np.float32)})
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(CheckpointError, match="b: no memory for the 1 MB of its arrays"):
        checkpoint.load(tmp_path / "b")


def test_a_shape_without_end_takes_no_time(tmp_path):
    """The product of its 100,000 sides would have six million bits, and would be multiplied as often."""
    begin = time.process_time()
    with pytest.raises(CheckpointError, match="no readable safetensors file: .*[Oo]verflow"):
        checkpoint.load(raw(tmp_path / "a", {"w": entry(shape=[(1 << 62) + 1] * 100_000)}, bytes(4)))
    assert time.process_time() - begin < 1


def test_a_right_header_is_read(tmp_path):
    """What the wrong ones differ from."""
    path = raw(tmp_path / "a", {"__metadata__": {"x": "y"}, "w": entry()}, b"\x00\x00\x80\x3f")
    loaded, metadata = checkpoint.load(path)
    same(loaded, {"w": np.array([1], np.float32)})
    assert metadata == {"x": "y"}


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F4", "C64", "\x1b[31m", "x" * 5000])
def test_types_that_are_not_read_are_named(tmp_path, kind):
    with pytest.raises(CheckpointError, match=r"a: 'fc6.weight' is of type '.*', which minigrad does not") as caught:
        checkpoint.load(raw(tmp_path / "a", {"v": entry(), "fc6.weight": entry(kind, [4], 4, 8)}, bytes(8)))
    assert kind[:8].strip("\x1b") in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_random_damage(tmp_path, seed):
    """Bytes changed, cut out and put in anywhere: the same comes out, or CheckpointError."""
    random = np.random.default_rng(seed)
    path = tmp_path / "a"
    checkpoint.save(path, arrays(), {"classes": ["dog", "bird"], "preset": "paper"})
    whole, (before, metadata) = path.read_bytes(), checkpoint.load(path)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            i, n = int(random.integers(len(damaged))), int(random.integers(1, 9))
            new = random.integers(0, 256, int(random.integers(0, 9)), dtype=np.uint8).tobytes()
            damaged[i : i + n] = new  # also none at all, or more than were there
        path.write_bytes(damaged)
        refused += refused_or_same(path, before, metadata)
    assert refused > 295


def cut(path):
    os.truncate(path, 4096)


def rewrite(path):
    path.write_bytes(path.read_bytes().replace(b'"w"', b'"v"'))


@pytest.mark.parametrize("act", [cut, rewrite])
def test_a_file_that_is_cut_off_or_changed_while_it_is_read(tmp_path, monkeypatch, act):
    path = tmp_path / "a"
    checkpoint.save(path, {"w": np.ones(1 << 18, np.float32)}, {"longer than what is read ahead": "x" * 20_000})

    def loads(*args, real=json.loads, **options):
        act(path)
        return real(*args, **options)

    monkeypatch.setattr(json, "loads", loads)
    with pytest.raises(CheckpointError, match="was cut off, or changed, while it was read"):
        checkpoint.load(path)


LIMITED = """
import numpy as np
from minigrad import CheckpointError, checkpoint
checkpoint.save("a", {"w": np.ones(10)})
try:
    checkpoint.save("a", {"w": np.ones(100_000)})
except CheckpointError as error:
    print(error)
print(checkpoint.load("a")[0]["w"].sum())
"""


LITTLE_MEMORY = """
import resource
import numpy as np
from minigrad import CheckpointError, checkpoint
state = {"w": np.ones(12_500_000, np.float32)}
checkpoint.save("a", state)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 75_000_000, used + 75_000_000))
for act in (lambda: checkpoint.save("a", state), lambda: checkpoint.load("a")):
    try:
        act()
    except CheckpointError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads and limits its memory as Linux does")
def test_memory_for_one_copy_of_the_arrays_alone(tmp_path):
    """The library, which needs two, ends the process or hangs where it gets none: it is not to begin."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout == (
        "checkpoint: cannot write a: no memory for a copy of its arrays: free some, or save fewer\n"
        "checkpoint: a: no memory for the 50 MB of its arrays: free twice as much\n"
    ), done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_a_disk_that_is_full(tmp_path):
    """The limit of a file's size: as a full disk, it lets some of the bytes through."""
    resource = pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert done.stdout == (
        "checkpoint: cannot write a: File too large: raise the limit (ulimit -f), or choose another file system\n10.0\n"
    ), done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_memory_and_order(tmp_path):
    """Each array has memory of its own, aligned; the widest come first in the file, so that others can map them."""
    checkpoint.save(tmp_path / "a", {"b": np.ones(3, np.uint8), "a": np.ones(3, np.float32), "c": np.ones(3)})
    loaded, _ = checkpoint.load(tmp_path / "a")
    assert list(loaded) == ["c", "a", "b"]
    assert all(array.flags.owndata and array.flags.aligned and array.flags.writeable for array in loaded.values())
    whole = (tmp_path / "a").read_bytes()
    assert int.from_bytes(whole[:8], "little") % 8 == 0
