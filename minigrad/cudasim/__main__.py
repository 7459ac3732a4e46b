"""python -m minigrad.cudasim: a kernel of anybody's CUDA file (command.py), or minigrad's own (own_kernels.py)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import command, own_kernels

_OWN = ("--case", "--source", "--dtype")  # options that only make sense for minigrad's own kernels
_WITH_VALUE = (*_OWN, "--mode", "--order", "--time-limit")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing found; 1: a report, or a wrong result; 2: it could not be tried."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return own_kernels.main(words) if _is_about_own(words) else command.main(words)


def _is_about_own(words: list[str]) -> bool:
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    if any(option in _OWN for option in options):
        return True
    # What only the other command knows.
    if any("=" in word and not word.startswith("-") for word in words) or set(options) & {"--kernel", "--list"}:
        return False
    files = [word for i, word in enumerate(words) if word[:1] != "-" and (i == 0 or words[i - 1] not in _WITH_VALUE)]
    return len(files) == 1 and own_kernels.means_own_kernel(files[0])


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
