"""Naive versions of the ops, in float64: plain loops that follow the formulas and nothing else.

These are what the fast versions in minigrad/ops are tested against; also the shortest way to say what each op is.
"""

import numpy as np


def conv2d_reference(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """y[n,o,i,j] = b[o] + sum over c,u,v of w[o,c,u,v] * x[n, c, s*i + d*u - p, s*j + d*v - p]; x is 0 outside."""
    (sh, sw), (dh, dw) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    (top, bottom), (left, right) = [
        np.broadcast_to(p, 2) for p in (padding if np.ndim(padding) else (padding, padding))
    ]
    n, c, h, l = x.shape
    o, cg, kh, kw = w.shape
    oh = (h + top + bottom - dh * (kh - 1) - 1) // sh + 1
    ow = (l + left + right - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, o, oh, ow))
    for image, channel, i, j in np.ndindex(y.shape):
        first = channel // (o // groups) * cg  # the first input channel of this output channel's group
        total = 0.0 if b is None else float(b[channel])
        for c_, u, v in np.ndindex(cg, kh, kw):
            row, col = sh * i + dh * u - top, sw * j + dw * v - left
            if 0 <= row < h and 0 <= col < l:
                total += float(w[channel, c_, u, v]) * float(x[image, first + c_, row, col])
        y[image, channel, i, j] = total
    return y


def conv2d_gradients_reference(x, w, dy, stride=1, padding=0, dilation=1, groups=1):
    """(dx, dw, db): every product of the sum that y[n,o,i,j] is gives dy[n,o,i,j] to both of its factors."""
    (sh, sw), (dh, dw_) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    (top, _), (left, _) = [np.broadcast_to(p, 2) for p in (padding if np.ndim(padding) else (padding, padding))]
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(len(w))
    for image, channel, i, j in np.ndindex(dy.shape):
        first = channel // (len(w) // groups) * w.shape[1]
        db[channel] += dy[image, channel, i, j]
        for c_, u, v in np.ndindex(w.shape[1:]):
            row, col = sh * i + dh * u - top, sw * j + dw_ * v - left
            if 0 <= row < x.shape[2] and 0 <= col < x.shape[3]:
                dw[channel, c_, u, v] += dy[image, channel, i, j] * x[image, first + c_, row, col]
                dx[image, first + c_, row, col] += dy[image, channel, i, j] * w[channel, c_, u, v]
    return dx, dw, db


NO_PADDING = ((0, 0), (0, 0))


def pool_windows(x, kernel, stride, padding, dilation, ceil_mode):
    """Every window (n, c, i, j, pixels of x inside the image, area within the padded image), and the output shape."""
    n, c, height, width = x.shape
    (top, bottom), (left, right) = padding
    counts = []
    for size, k, s, before, after, d in (
        (height, kernel[0], stride[0], top, bottom, dilation[0]),
        (width, kernel[1], stride[1], left, right, dilation[1]),
    ):
        steps = (size + before + after - d * (k - 1) - 1) / s
        count = int(np.ceil(steps) if ceil_mode else np.floor(steps)) + 1
        while ceil_mode and (count - 1) * s >= size + before:
            count -= 1
        counts.append(count)
    windows = []
    for index in np.ndindex(n, c, *counts):
        pixels, area = [], 0
        for u in range(kernel[0]):
            for v in range(kernel[1]):
                row = index[2] * stride[0] + u * dilation[0] - top
                col = index[3] * stride[1] + v * dilation[1] - left
                area += row < height + bottom and col < width + right
                if 0 <= row < height and 0 <= col < width:
                    pixels.append((index[0], index[1], row, col))
        windows.append((index, pixels, area))
    return windows, (n, c, *counts)


def max_pool2d_reference(x, kernel, stride, padding=NO_PADDING, dilation=(1, 1), ceil_mode=False, dy=None):
    """(y, dx): the gradient goes to the first NaN of a window, else to its first maximum."""
    windows, shape = pool_windows(x, kernel, stride, padding, dilation, ceil_mode)
    y, dx = np.zeros(shape), np.zeros(x.shape)
    for index, pixels, _ in windows:
        best = pixels[0]
        for pixel in pixels:
            if not np.isnan(x[best]) and (np.isnan(x[pixel]) or x[pixel] > x[best]):
                best = pixel
        y[index] = x[best]
        if dy is not None:
            dx[best] += dy[index]
    return y, dx


def avg_pool2d_reference(x, kernel, stride, padding=NO_PADDING, ceil_mode=False, count_include_pad=True):
    windows, shape = pool_windows(x, kernel, stride, padding, (1, 1), ceil_mode)
    y = np.zeros(shape)
    for index, pixels, area in windows:
        y[index] = sum(x[pixel] for pixel in pixels) / (area if count_include_pad else len(pixels))
    return y


def lrn_reference(x, n=5, k=2.0, alpha=1e-4, beta=0.75, groups=1):
    channels = x.shape[1] // groups
    y = np.zeros(x.shape)
    for image, c, i, j in np.ndindex(x.shape):
        first = c // channels * channels  # of this group
        window = range(max(first, c - n // 2), min(first + channels, c + n // 2 + 1))
        s = k + alpha * sum(x[image, other, i, j] ** 2 for other in window)
        y[image, c, i, j] = x[image, c, i, j] / s**beta
    return y


def lrn_within_map_reference(x, n=5, k=1.0, alpha=4e-5, beta=0.75):
    _, _, height, width = x.shape
    y = np.zeros(x.shape)
    for image, c, i, j in np.ndindex(x.shape):
        rows = range(max(0, i - n // 2), min(height, i + n // 2 + 1))
        cols = range(max(0, j - n // 2), min(width, j + n // 2 + 1))
        s = k + alpha * sum(x[image, c, u, v] ** 2 for u in rows for v in cols)
        y[image, c, i, j] = x[image, c, i, j] / s**beta
    return y


def lrn_gradient_reference(x, dy, n=5, k=2.0, alpha=1e-4, beta=0.75, groups=1):
    channels = x.shape[1] // groups

    def window(image, c, i, j):
        first = c // channels * channels
        others = range(max(first, c - n // 2), min(first + channels, c + n // 2 + 1))
        return [(image, other, i, j) for other in others]

    return _response_gradient(x, dy, window, k, alpha, beta)


def lrn_within_map_gradient_reference(x, dy, n=5, k=1.0, alpha=4e-5, beta=0.75):
    _, _, height, width = x.shape

    def window(image, c, i, j):
        rows = range(max(0, i - n // 2), min(height, i + n // 2 + 1))
        cols = range(max(0, j - n // 2), min(width, j + n // 2 + 1))
        return [(image, c, u, v) for u in rows for v in cols]

    return _response_gradient(x, dy, window, k, alpha, beta)


def _response_gradient(x, dy, window, k, alpha, beta):
    """dx, from every y = x / s^beta to its own x and, through s, to every x of its window."""
    dx = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        s = k + alpha * sum(x[other] ** 2 for other in window(*index))
        dx[index] += dy[index] / s**beta
        ds = dy[index] * x[index] * -beta / s ** (beta + 1)
        for other in window(*index):
            dx[other] += ds * alpha * 2 * x[other]
    return dx


def linear_reference(x, w, b=None):
    """y[i, o] = b[o] + sum over k of w[o, k] * x[i, k]; x (N, in)."""
    y = np.zeros((len(x), len(w)))
    for i, o in np.ndindex(y.shape):
        total = 0.0 if b is None else float(b[o])
        for k in range(x.shape[1]):
            total += float(w[o, k]) * float(x[i, k])
        y[i, o] = total
    return y


def softmax_reference(x):
    """exp(x_c) / sum over j of exp(x_j), for each row of x (N, C)."""
    y = np.zeros(x.shape)
    for i, row in enumerate(x):
        powers = [np.exp(float(value)) for value in row]
        y[i] = [power / sum(powers) for power in powers]
    return y


def cross_entropy_reference(x, t):
    """-log of the softmax of x (N, C) at the true class, for each row."""
    p = softmax_reference(x)
    return np.array([-np.log(p[i, c]) for i, c in enumerate(t)])


def batch_norm_reference(x, weight, bias, eps, mean=None, var=None):
    """weight[c] * (x - mean[c]) / sqrt(var[c] + eps) + bias[c], mean and var of channel c's numbers unless given."""
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        numbers = [float(value) for value in x[:, c].flat]
        middle = sum(numbers) / len(numbers) if mean is None else float(mean[c])
        spread = sum((value - middle) ** 2 for value in numbers) / len(numbers) if var is None else float(var[c])
        y[:, c] = float(weight[c]) * (x[:, c] - middle) / np.sqrt(spread + eps) + float(bias[c])
    return y


def batch_norm_gradients_reference(x, dy, weight, eps):
    """(dx, dweight, dbias) of batch statistics: dh_j/dx_i = s ([i = j] - 1 / m - h_i h_j / m), one number at a time."""
    dx, h = np.zeros(x.shape), batch_norm_reference(x, np.ones(x.shape[1]), np.zeros(x.shape[1]), eps)
    for c in range(x.shape[1]):
        h_c, dy_c = h[:, c].ravel(), dy[:, c].ravel()
        s, m = 1 / np.sqrt(x[:, c].var() + eps), len(h_c)
        dx_c = np.zeros(m)
        for i, j in np.ndindex(m, m):
            dx_c[i] += weight[c] * dy_c[j] * s * ((i == j) - 1 / m - h_c[i] * h_c[j] / m)
        dx[:, c] = dx_c.reshape(dx[:, c].shape)
    others = tuple(axis for axis in range(x.ndim) if axis != 1)
    return dx, (dy * h).sum(others), dy.sum(others)


def prepare_reference(x, windows, size, mean, colours, scale):
    """y[n,v,c,i,j] = (x[n, top+i, left+k, c] - mean[top+i, left+k, c] + colours[n,c]) * scale, each step in float32.

    k = j, or size-1-j in a mirrored view; windows (N, 3) or (N, V, 3): top, left, mirrored.
    """
    f = np.float32
    y = np.zeros((*windows.shape[:-1], x.shape[-1], size, size), f)
    for *nv, c, i, j in np.ndindex(y.shape):
        n, (top, left, mirrored) = nv[0], windows[tuple(nv)]
        row, col = top + i, left + (size - 1 - j if mirrored else j)
        y[(*nv, c, i, j)] = ((f(x[n, row, col, c]) - f(mean[row, col, c])) + f(colours[n, c])) * f(scale)
    return y
