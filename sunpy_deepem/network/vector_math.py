"""What compiled functions have in common: `compiled`, and an `exp` and `log` that become vector instructions."""

import numpy as np
from numba import njit

__all__ = ["compiled", "exp", "inlined", "log"]

#: Decorator of functions that Numba compiles; the result is kept on disk.
compiled = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")

#: The same for functions that become a part of those that call them, so that their arguments are not counted.
inlined = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy", forceinline=True)

# Numba calls scalar functions of the C library for np.exp and np.log, which prevents vector instructions.
# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_HALF, _ONE, _TWO = _F(0.5), _F(1), _F(2)
_LOG2_E, _LN2, _LN2_HIGH, _LN2_LOW = _F(1.44269504), _F(0.69314718), _F(0.693359375), _F(-2.12194440e-4)
_ROOT_HALF_BITS = np.int32(0x3F3504F3)


@compiled
def exp(x):
    """Return exp(x) to single precision, for x from -87 to 88, in a way that becomes vector instructions."""
    k = np.floor(x * _LOG2_E + _HALF)
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _HALF
    bits = np.int32((np.int32(k) + np.int32(127)) << np.int32(23))
    return (p * r * r + r + _ONE) * bits.view(np.float32)


@compiled
def log(x):
    """Return ln(x) of a positive, normal number to single precision, likewise."""
    bits = np.float32(x).view(np.int32)
    # The mantissa between the root of a half and the root of two, by the rounding of the exponent.
    shifted = np.int32(bits - _ROOT_HALF_BITS)
    exponent = np.int32(shifted >> np.int32(23))
    mantissa = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32)
    z = (mantissa - _ONE) / (mantissa + _ONE)
    w = z * z
    p = _F(2 / 9)
    p = p * w + _F(2 / 7)
    p = p * w + _F(2 / 5)
    p = p * w + _F(2 / 3)
    return np.float32(exponent) * _LN2 + z * (p * w + _TWO)
