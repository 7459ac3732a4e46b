"""`python -m minigrad.nvrtc`: what NVIDIA's compiler makes of the kernels, without a card; see gpu/nvrtc.py."""

import sys

from .gpu.nvrtc import main

if __name__ == "__main__":
    sys.exit(main())
