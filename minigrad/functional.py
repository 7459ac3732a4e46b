"""Every op's public function, under one roof: `import minigrad.functional as F; F.relu(x)`.

Importing this module also fills `OPS` (operators.py), from which tensors take their methods and operators.
"""

from .ops.arithmetic import add, divide, multiply, negative, power, subtract
from .ops.astype import astype
from .ops.avg_pool2d import avg_pool2d
from .ops.batch_norm import batch_norm
from .ops.compare import equal, greater, greater_equal, less, less_equal, not_equal
from .ops.concat import concat, split
from .ops.conv2d import conv2d, conv_transpose2d
from .ops.copy import copy
from .ops.cross_entropy import cross_entropy
from .ops.dropout import dropout
from .ops.extremes import abs, clip, maximum, minimum
from .ops.linear import linear
from .ops.lrn import lrn, lrn_within_map
from .ops.matmul import matmul
from .ops.max_pool2d import max_pool2d
from .ops.pad import pad
from .ops.pointwise import exp, log, sqrt
from .ops.prepare import prepare
from .ops.reduce import max, mean, sum
from .ops.relu import relu
from .ops.shape import flatten, getitem, reshape, transpose
from .ops.sigmoid import sigmoid
from .ops.softmax import log_softmax, softmax
from .ops.tanh import tanh
from .ops.where import where

__all__ = [
    "abs",
    "add",
    "astype",
    "avg_pool2d",
    "batch_norm",
    "clip",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "copy",
    "cross_entropy",
    "divide",
    "dropout",
    "equal",
    "exp",
    "flatten",
    "getitem",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "linear",
    "log",
    "log_softmax",
    "lrn",
    "lrn_within_map",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "pad",
    "power",
    "prepare",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "split",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "where",
]
