"""Which kernels a train step of AlexNet launches on a card, layer by layer: `python docs/atlas/alexnet_kernels.py`.

Prints JSON: a list of [layer, op, phase, file, kernel].  No card is needed: the net runs on the stand-in for CuPy of
benchmarks/launches.py, on which arrays have shapes and kernels count themselves.  It takes a process of its own, for
whoever has imported CuPy before, or not found it, has decided.  minigrad's own kernels multiply (`set_gemm`), as on the
emulator; on a card cuBLAS does it for the products of linear unless told otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def launched(batch: int) -> list[list[str]]:
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
    import launches

    sys.modules["cupy"] = launches.stand_in()
    import alexnet
    import numpy as np
    from alexnet_layers import ByLayer

    import minigrad
    import minigrad.functional as F
    from minigrad import Tensor, optim
    from minigrad.gpu.card import Card
    from minigrad.tools import tracing

    minigrad.set_gemm("minigrad")
    alexnet.AlexNet.initialize = lambda self: None  # type: ignore[method-assign]  # numbers that nobody looks at
    minigrad.init.he_normal_ = lambda tensor: tensor
    net = alexnet.AlexNet(devices=("cuda:0", "cuda:1"))
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, update_rule="alexnet")
    at: list[tuple[list[str], str, str]] = []
    found: list[tuple[list[str], str, str, str, str]] = []
    launch = Card.launch

    def noted(self: Any, file: str, kernel: str, *args: Any, **more: Any) -> Any:
        if at:
            found.append((*at[-1], file, kernel))
        return launch(self, file, kernel, *args, **more)

    def seen(layer: list[str], op: str, phase: str, work: Callable[[], Any]) -> Any:
        at.append((layer, op, phase))
        try:
            return work()
        finally:
            at.pop()

    Card.launch = noted  # type: ignore[method-assign]
    tracing.recorder = ByLayer(net, seen)
    with minigrad.in_turn():
        images = Tensor(np.zeros((batch, 3, 224, 224), "f"), device="cuda:0")
        F.cross_entropy(net(images), np.zeros(batch, int)).backward()
        seen(["update"], "sgd", "", optimizer.step)
    return [list(one) for one in dict.fromkeys((layer, *rest) for (layer,), *rest in found)]


if __name__ == "__main__":
    print(json.dumps(launched(int(sys.argv[1]) if len(sys.argv) > 1 else 128)))
