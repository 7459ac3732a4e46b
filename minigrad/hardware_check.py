"""`python -m minigrad.hardware_check`: are the kernels right on this card, and how fast; see gpu/hardware_check."""

import sys

from .gpu.hardware_check.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
