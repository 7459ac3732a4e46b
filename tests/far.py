"""Tensors of more than 2^31 elements, in which all but the last image is memory that nobody ever touches.

Index arithmetic in 32 bits goes wrong there and nowhere else.  Emulated devices only: their memory takes no room until
it is written to, and they can run the last few blocks of a grid alone.
"""

import math

import pytest

import minigrad
from minigrad import Tensor
from minigrad.cudasim import settings
from minigrad.errors import OutOfMemoryError


def last_images_of_many(op, x, dy, device, monkeypatch, elements=2**31):
    """(y, dx) of op(x), where images x are the last ones of a batch so large; dy is the gradient of their y.

    Both x and y have more than that many elements.  Launches run the last blocks of their grids alone: as many as these
    images have elements, which is enough for any kernel whose blocks go through the images in order.
    """
    if not device.startswith("cudasim"):
        pytest.skip("needs an emulated device")
    where = minigrad.device(device)
    images = elements // min(x[0].size, dy[0].size) + len(x) + 1
    blocks = max(x.size, dy.size)
    launch = where.runtime.launch

    def launch_of_last_blocks(function, parameters, grid, *rest):
        end = math.prod(grid)
        with settings.options(blocks=range(max(0, end - blocks), end)):
            launch(function, parameters, grid, *rest)

    def many(some):
        array = where.empty((images, *some.shape[1:]), some.dtype)
        array.host[-len(some) :] = some
        return array

    monkeypatch.setattr(where.runtime, "launch", launch_of_last_blocks)
    try:
        with settings.options(poison=False, mode="fast"):  # check mode would keep marks of all this memory
            tensor = Tensor(x, requires_grad=True, device=device)
            tensor.data = many(x)
            y = op(tensor)
            dx = y.node.backward_gpu(many(dy))
            assert min(y.size, dx.size) > elements
            return y.data.host[-len(x) :].copy(), dx.host[-len(x) :].copy()
    except OutOfMemoryError as error:
        pytest.skip(f"the system has no address space for {images * x[0].nbytes / 1e9:.0f} GB: {error}")
