"""ONNX in and out: `minigrad.onnx.load(path)` makes a module, `minigrad.onnx.export(model, images, path)` a file.

    reading      a file as plain Python: nodes, constants, names; what is missing, all at once
    operators    what each operator of ONNX does here; windows, shapes: those on images, and on shapes and indices
    net          the module that runs such a graph, forward and backward
    recording    the ops that a model runs, written down while it runs
    writers      which nodes of ONNX do what one op of ours does
    exporting    from two recordings to a checked file

Needs the package onnx (pip install 'minigrad[onnx]'), which is imported when a file is read or written.
docs/onnx.md tells how to use it.
"""

from .exporting import export
from .net import Net, load

__all__ = ["Net", "export", "load"]
