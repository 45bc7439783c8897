"""
Images as integers that compress well, for pages that hold their data.

A code is rounded to a step that nobody can see, and predicted from its neighbors to the left and below; the page
holds what is left, which bokeh compresses.
"""

import numpy as np

__all__ = ["UNPACK", "log_codes", "packed", "ratio_codes", "signed_codes", "signed_values"]

# Intensities below this are on a linear scale, in DN / (s pix).
_LINEAR = 0.01
_OFFSET = 10_000

#: JavaScript that turns ``bytes`` of `packed` with planes of ``ny`` times ``nx`` pixels into codes again.
UNPACK = """
const unpack = (bytes, chained) => {
  const [size, n] = [bytes.length / 2, nx * ny]
  const codes = new Int32Array(size)
  for (let i = 0; i < size; i++) {
    const folded = bytes[i] << 8 | bytes[size + i]
    codes[i] = folded >>> 1 ^ -(folded & 1)
    if (chained && i >= n) codes[i] += codes[i - n]
  }
  for (let i = 0; i < size; i++) {
    const x = i % nx, y = (i % n - x) / nx
    if (x && y) codes[i] += codes[i - 1] + codes[i - nx] >> 1
    else if (x) codes[i] += codes[i - 1]
    else if (y) codes[i] += codes[i - nx]
  }
  return codes
}
const asinh_of = (code, step) => code ? (code - OFFSET) * step * Math.LN10 : NaN
const signed = (code, step) => LINEAR * Math.sinh(asinh_of(code, step))
const relative = (code, step, value) =>
  code ? 10 ** ((code - OFFSET) * step + Math.asinh(value / LINEAR) / Math.LN10) : NaN
""".replace("OFFSET", str(_OFFSET)).replace("LINEAR", str(_LINEAR))


def log_codes(values, low, step):
    """Return integer codes of log10: 1 at ``low``, one more per ``step``; 0 for smaller values and NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.rint((np.log10(values) - low) / step) + 1
    return np.where(codes >= 1, codes, 0).astype(np.int32)


def signed_codes(values, step):
    """Return codes of values of both signs, equal steps of log10 far from zero; 0 for NaN."""
    codes = np.rint(np.arcsinh(values / _LINEAR) / (step * np.log(10))) + _OFFSET
    return np.where(np.isfinite(codes), codes, 0).astype(np.int32)


def signed_values(codes, step):
    """Return the values of `signed_codes`."""
    return np.where(codes > 0, _LINEAR * np.sinh((codes - _OFFSET) * step * np.log(10)), np.nan)


def ratio_codes(values, base, step):
    """Return codes of positive values relative to values of both signs; 0 for NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.rint((np.log10(values) - np.arcsinh(base / _LINEAR) / np.log(10)) / step) + _OFFSET
    return np.where(np.isfinite(codes), codes, 0).astype(np.int32)


def packed(codes, *, chained=False):
    """
    Return the bytes of images of codes.

    Parameters
    ----------
    codes : `~numpy.ndarray` of `int`
        From 0 to 32767, shape ``(n, ny, nx)``.
    chained : `bool`, optional
        Whether what is left of one image helps to predict the next.

    Returns
    -------
    `~numpy.ndarray` of `numpy.uint8`
        The upper bytes of all pixels, then the lower ones.
    """
    predicted = np.zeros_like(codes)
    predicted[:, 0, 1:], predicted[:, 1:, 0] = codes[:, 0, :-1], codes[:, :-1, 0]
    predicted[:, 1:, 1:] = (codes[:, 1:, :-1] + codes[:, :-1, 1:]) >> 1
    left = codes - predicted
    if chained:
        left[1:] = np.diff(left, axis=0)
    folded = ((left << 1) ^ (left >> 31)).astype(np.uint16).ravel()  # small positive numbers for both signs
    return np.concatenate([folded >> 8, folded & 255]).astype(np.uint8)
