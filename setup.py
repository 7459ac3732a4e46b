"""Installation.  The settings of the tools (ruff, mypy, pytest) are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "minigrad" / "__init__.py").read_text())[1]

PLOT = ["matplotlib>=3.7"]
# NVIDIA's compiler, alone: it needs no card and no driver.  Not among the tests' needs, nor beside cuda12, which has
# one of its own: CuPy for CUDA 12 would take this newer one, and what that compiles no driver for CUDA 12 can load.
NVRTC = ["nvidia-cuda-nvrtc>=13; sys_platform == 'linux'"]
IMAGENET = ["scipy>=1.11"]  # reads the meta.mat of ILSVRC2012's development kit
ONNX = ["onnx>=1.16"]  # reads and writes ONNX files
# An MPI library as a wheel; 4.1 is the first mpi4py that takes any.  A cluster has a library of its own: mpi4py alone.
MPI = ["mpi4py>=4.1; sys_platform != 'win32'", "mpich>=4; sys_platform != 'win32'"]
TEST = ["pytest>=7.4", "pytest-xdist>=3.5", "hypothesis>=6.80", "onnxruntime>=1.17", *ONNX, *PLOT, *IMAGENET, *MPI]

setup(
    name="minigrad",
    version=VERSION,
    description="A deep learning framework to read: NumPy and raw CUDA kernels, proven on the two-column AlexNet",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    # The CUDA sources stay in the top-level folder kernels/, where readers look; an installed wheel carries them inside
    # the package.  minigrad/gpu/sources.py finds them in both places.
    packages=[*find_packages(include=["minigrad", "minigrad.*"]), "minigrad._kernels"],
    package_dir={"minigrad._kernels": "kernels"},
    package_data={
        "minigrad": ["py.typed", "cudasim/cpp/*"],
        "minigrad._kernels": ["*.cu", "*.cuh", "*.md", "budget.json", "ladder/*.cu"],
    },
    # Each is tested at its oldest (.ci/run).  safetensors before 0.4.4 cannot read a file without arrays that it has
    # written itself, such as the state of an optimiser that has none.
    install_requires=["numpy>=2.0", "pillow>=9.4", "tqdm>=4.65", "safetensors>=0.4.4", "threadpoolctl>=3.5"],
    extras_require={
        # [ctk], from CuPy 14 on: cuBLAS, NVRTC and the headers of that CUDA, for machines that have the driver alone.
        "cuda12": ["cupy-cuda12x[ctk]>=14"],
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
        "nvrtc": NVRTC,
        "plot": PLOT,
        "imagenet": IMAGENET,
        "docs": ["pdoc>=14", "latex2mathml>=3.77", "markdown>=3.5", "pygments>=2.17"],  # docs/api.py, docs/atlas
        "onnx": ONNX,
        "mpi": MPI,
        "test": TEST,
        "dev": [*TEST, *NVRTC, "ruff>=0.6", "mypy>=1.8"],
    },
)
