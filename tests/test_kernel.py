"""Where the CUDA sources lie: in a checkout here; .ci/run looks into an installed wheel."""

import pytest

from minigrad.errors import DeviceError
from minigrad.kernel import kernel_folder, kernel_source


def test_a_checkout_reads_its_own_folder():
    assert kernel_folder().name in ("kernels", "_kernels")
    assert (kernel_folder() / "README.md").is_file()


def test_an_unknown_kernel_is_named():
    with pytest.raises(DeviceError, match="no nonsense.cu"):
        kernel_source("nonsense")
