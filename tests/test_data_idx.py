"""The idx reader against files written byte by byte with struct."""

import gzip
import struct

import numpy as np
import pytest

from minigrad.data import load_mnist, read_idx
from minigrad.errors import DataError


def idx_bytes(code: int, letter: str, shape: tuple[int, ...], values: list) -> bytes:
    """An idx file, from the format's description."""
    return (
        bytes([0, 0, code, len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + struct.pack(f">{len(values)}{letter}", *values)
    )


@pytest.mark.parametrize(
    ("code", "letter", "dtype", "values"),
    [
        (0x08, "B", np.uint8, [0, 1, 127, 128, 254, 255]),
        (0x09, "b", np.int8, [-128, -1, 0, 1, 2, 127]),
        (0x0B, "h", np.int16, [-32768, -2, 0, 1, 256, 32767]),
        (0x0C, "i", np.int32, [-(2**31), -2, 0, 1, 65536, 2**31 - 1]),
        (0x0D, "f", np.float32, [-1.5, 0.0, 0.25, 1e10, -1e-10, 3.0]),
        (0x0E, "d", np.float64, [-1.5, 0.1, 0.25, 1e300, -1e-300, 3.0]),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_element_type(tmp_path, code, letter, dtype, values, zipped):
    data = idx_bytes(code, letter, (2, 3), values)
    (tmp_path / "x").write_bytes(gzip.compress(data) if zipped else data)  # no .gz: content decides
    array = read_idx(tmp_path / "x")
    assert array.dtype == dtype and array.dtype.isnative and array.shape == (2, 3)
    assert np.array_equal(array, np.array(values, dtype).reshape(2, 3))
    array += 1  # writeable


def test_scalars_empty_arrays_and_four_dimensions(tmp_path):
    for shape, n in (((), 1), ((0,), 0), ((0, 28, 28), 0), ((2, 1, 3, 2), 12)):
        (tmp_path / "x").write_bytes(idx_bytes(8, "B", shape, list(range(n))))
        array = read_idx(str(tmp_path / "x"))
        assert array.shape == shape and array.ravel().tolist() == list(range(n))


GOOD = idx_bytes(8, "B", (2, 3), [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with ''"),
        (b"\0\0\x08", "begins with '00 00 08'"),
        (b"\0\1" + GOOD[2:], "no idx file.*begins with '00 01 08 02'"),
        (b"\0\0\x0a" + GOOD[3:], "begins with '00 00 0a 02'"),
        (b"\0\0\x08\xff" + GOOD[4:], "no idx file"),
        (b"\x89PNG" + GOOD, "no idx file"),
        (GOOD[:10], "truncated: it announces 2 dimensions but ends after 1"),
        (GOOD[:-1], r"truncated: shape \(2, 3\) of uint8 needs 6 bytes, found 5"),
        (GOOD + b"\0", r"too long: shape \(2, 3\) of uint8 needs 6 bytes, found more"),
        (idx_bytes(8, "B", (2**32 - 1,) * 3, [1]), "truncated"),  # must not reserve 2**96 bytes
        (gzip.compress(GOOD[:-1], mtime=0), "truncated.*found 5"),
        (gzip.compress(GOOD + b"\0", mtime=0), "too long"),
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 30, "cannot be read .error"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    (tmp_path / "damaged-idx").write_bytes(data)
    with pytest.raises(DataError, match=rf"damaged-idx' .*{message}"):
        read_idx(tmp_path / "damaged-idx")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="gone' cannot be read .FileNotFoundError"):
        read_idx(tmp_path / "gone")


def test_paths_that_cannot_be_files(tmp_path):
    for path, message in (
        (tmp_path, "IsADirectoryError: Is a directory"),
        ("x" * 300, "OSError: File name too long"),
        ("a\0b", "'a.x00b' cannot be read .ValueError: embedded null byte"),
        (b"\xff\n", r"'\\xff\\n' cannot be read .FileNotFoundError"),
    ):
        with pytest.raises(DataError, match=message):
            read_idx(path)


def write_mnist(folder, joint="-", zipped=True, train_labels=6) -> dict[str, np.ndarray]:
    """Four small files as the real ones are named; returns what they hold."""
    arrays = {}
    for part, n, n_labels in (("train", 6, train_labels), ("t10k", 4, 4)):
        images, labels = [(7 * k + n) % 256 for k in range(n * 4 * 4)], [k % 10 for k in range(n_labels)]
        arrays[part + "-images"] = np.array(images).reshape(n, 4, 4)
        arrays[part + "-labels"] = np.array(labels)
        for kind, shape, values in (("images", (n, 4, 4), images), ("labels", (n_labels,), labels)):
            data = idx_bytes(8, "B", shape, values)
            name = f"{part}-{kind}{joint}idx{len(shape)}-ubyte"
            (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
    return arrays


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_load_mnist_under_all_its_names(tmp_path, joint, zipped):
    expected = write_mnist(tmp_path, joint, zipped)
    mnist = load_mnist(tmp_path)
    assert mnist.train_images.dtype == np.uint8
    assert mnist.train_labels.dtype == np.int64
    assert np.array_equal(mnist.train_images, expected["train-images"])
    assert np.array_equal(mnist.train_labels, expected["train-labels"])
    assert np.array_equal(mnist.test_images, expected["t10k-images"])
    assert np.array_equal(mnist.test_labels, expected["t10k-labels"])


def test_load_mnist_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="train-images-idx3-ubyte or .*found nothing"):
        load_mnist(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_mnist(tmp_path / "gone")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").rename(tmp_path / "labels.gz")
    with pytest.raises(DataError, match="looked for t10k-labels-idx1-ubyte or .*found labels.gz, t10k-"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, train_labels=5)
    with pytest.raises(DataError, match="6 images but .* 5 labels"):
        load_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").rename(tmp_path / "train-labels-idx1-ubyte.gz")
    write_mnist(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"must hold uint8 in 1 dimensions, got uint8 \(6, 4, 4\)"):
        load_mnist(tmp_path)


def test_load_mnist_of_a_folder_it_cannot_use(tmp_path):
    with pytest.raises(DataError, match="load_mnist: cannot list 'x+' .OSError: File name too long"):
        load_mnist("x" * 300)
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    (tmp_path / "train-images-idx3-ubyte").mkdir()  # some archives pack each file into a folder of its name
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte' cannot be read .IsADirectoryError"):
        load_mnist(tmp_path)
    write_mnist(tmp_path)
    assert load_mnist(tmp_path).train_images.shape == (6, 4, 4)  # a file of that name is preferred
    (tmp_path / "train-labels-idx1-ubyte.gz").rename(tmp_path / "\x1b[2J\n")
    with pytest.raises(DataError, match=r"found \\x1b\[2J\\n, t10k"):
        load_mnist(tmp_path)
