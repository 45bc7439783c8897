"""
Vectors of 16 numbers in functions that Numba compiles: `load`, `store`, arithmetic and elementary functions.

Numba makes vector instructions of loops, each of which keeps its results in memory. A `Vector` stays in a register of
the processor, so that sums need no loads and stores on the way. LLVM splits it where registers are shorter.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numba.np.arrayobj import make_array

from sunpy_deepem.network.vector_math import compiled

__all__ = [
    "LANES",
    "clip",
    "exp",
    "finite_or",
    "fma",
    "greater",
    "load",
    "load_bfloat16",
    "log",
    "maximum",
    "minimum",
    "pick",
    "select",
    "spread",
    "store",
    "transpose",
]

#: Numbers in a vector.
LANES = 16
_F = np.float32
_FLOATS, _INTEGERS = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32)))
_ROOT_HALF_BITS, _ONE_BITS, _MANTISSA_BITS = 0x3F3504F3, 0x3F800000, 23


class Vector(types.Type):
    """Numba's type of a vector of numbers of type float32."""

    def __init__(self):
        super().__init__("vector")


class Mask(types.Type):
    """Numba's type of the result of a comparison of vectors."""

    def __init__(self):
        super().__init__("mask")


vector, mask = Vector(), Mask()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _FLOATS)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), LANES))


def _constant(kind, value):
    return ir.Constant(kind, [value] * LANES)


def _operation(name, emit, kinds=(vector, vector), result=vector):
    """Return a function of arguments of these kinds that compiles to the instructions that ``emit`` adds."""

    def generate(_context, builder, _signature, arguments):
        return emit(builder, *arguments)

    # Numba looks at the number of parameters, and takes functions of the same name for the same one.
    typed = {
        1: lambda _typing, a: (result(*kinds), generate),
        2: lambda _typing, a, b: (result(*kinds), generate),
        3: lambda _typing, a, b, c: (result(*kinds), generate),
    }[len(kinds)]
    typed.__name__ = name
    return intrinsic(typed)


def _call(name):
    """Return what emits the call of a function that LLVM provides for every processor."""

    def emit(builder, *arguments):
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return builder.call(function, arguments)

    return emit


def _pick(comparison):
    """Return what emits the choice of the smaller or larger numbers."""
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(comparison, a, b), a, b)


def _emit_finite_or(builder, a, b):
    return builder.select(builder.fcmp_ordered("==", builder.fsub(a, a), _constant(_FLOATS, 0.0)), a, b)


def _emit_pick_at(builder, values, index):
    """LLVM makes one instruction of this where the processor has one."""
    index = builder.and_(builder.fptosi(index, _INTEGERS), _constant(_INTEGERS, LANES - 1))
    result = ir.Constant(_FLOATS, ir.Undefined)
    for i in range(LANES):
        lane = ir.Constant(ir.IntType(32), i)
        number = builder.extract_element(values, builder.extract_element(index, lane))
        result = builder.insert_element(result, number, lane)
    return result


def _emit_power(builder, k):
    """2ᵏ of integers k of type float32, by their bits."""
    bits = builder.add(builder.fptosi(k, _INTEGERS), _constant(_INTEGERS, 127))
    return builder.bitcast(builder.shl(bits, _constant(_INTEGERS, _MANTISSA_BITS)), _FLOATS)


def _exponent_bits(builder, x):
    """Return the bits of x, and its exponent, with the mantissa between the root of a half and the root of two."""
    bits = builder.bitcast(x, _INTEGERS)
    shifted = builder.sub(bits, _constant(_INTEGERS, _ROOT_HALF_BITS))
    return bits, builder.ashr(shifted, _constant(_INTEGERS, _MANTISSA_BITS))


def _emit_exponent(builder, x):
    return builder.sitofp(_exponent_bits(builder, x)[1], _FLOATS)


def _emit_mantissa(builder, x):
    bits, exponent = _exponent_bits(builder, x)
    return builder.bitcast(builder.sub(bits, builder.shl(exponent, _constant(_INTEGERS, _MANTISSA_BITS))), _FLOATS)


_add = _operation("add", lambda builder, a, b: builder.fadd(a, b))
_subtract = _operation("subtract", lambda builder, a, b: builder.fsub(a, b))
_multiply = _operation("multiply", lambda builder, a, b: builder.fmul(a, b))
_divide = _operation("divide", lambda builder, a, b: builder.fdiv(a, b))
_fma = _operation("fma", _call("fma"), kinds=(vector, vector, vector))
_floor = _operation("floor", _call("floor"), kinds=(vector,))
_power = _operation("power", _emit_power, kinds=(vector,))
_exponent = _operation("exponent", _emit_exponent, kinds=(vector,))
_mantissa = _operation("mantissa", _emit_mantissa, kinds=(vector,))
minimum = _operation("minimum", _pick("<"))
maximum = _operation("maximum", _pick(">"))
#: The numbers of the first vector where these are finite, elsewhere those of the second.
finite_or = _operation("finite_or", _emit_finite_or)
#: Where the numbers of the first vector are larger.
greater = _operation("greater", lambda builder, a, b: builder.fcmp_ordered(">", a, b), result=mask)
#: The numbers of the first vector at the positions that the second one holds, modulo `LANES`.
pick = _operation("pick", _emit_pick_at)
#: The numbers of the second vector where a mask is set, elsewhere those of the third.
select = _operation("select", lambda builder, *arguments: builder.select(*arguments), kinds=(mask, vector, vector))


@intrinsic
def spread(_typing, value):
    """Return a vector of equal numbers."""

    def generate(context, builder, signature, arguments):
        number = context.cast(builder, arguments[0], signature.args[0], types.float32)
        single = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(single, ir.Constant(_FLOATS, ir.Undefined), _constant(_INTEGERS, 0))

    return vector(value), generate


def _pointer(context, builder, kind, array, index):
    """Return a pointer to the vector at an index along all axes but the last, which starts there."""
    indices = cgutils.unpack_tuple(builder, index, kind.ndim - 1) if kind.ndim > 2 else [index]
    start = context.get_constant(types.intp, 0)
    pointer = cgutils.get_item_pointer(
        context, builder, kind, make_array(kind)(context, builder, array), [*indices, start], wraparound=False
    )
    return builder.bitcast(pointer, _FLOATS.as_pointer())


def _index_type(array):
    return types.UniTuple(types.intp, array.ndim - 1) if array.ndim > 2 else types.intp


@intrinsic
def load(_typing, array, index):
    """Return the vector at an index, a tuple for more than two axes, of an array with `LANES` numbers in a row."""

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=4)

    return vector(array, _index_type(array)), generate


@intrinsic
def load_bfloat16(_typing, array, index):
    """Return the vector at such an index of an array of type int16 that holds the bits of bfloat16."""

    def generate(context, builder, signature, arguments):
        kind = ir.VectorType(ir.IntType(16), LANES)
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *arguments), kind.as_pointer())
        bits = builder.zext(builder.load(pointer, align=2), _INTEGERS)
        return builder.bitcast(builder.shl(bits, _constant(_INTEGERS, 16)), _FLOATS)

    return vector(array, _index_type(array)), generate


@intrinsic
def store(_typing, array, index, value):
    """Store a vector at such an index."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, _pointer(context, builder, signature.args[0], array, index), align=4)
        return context.get_dummy_value()

    return types.void(array, _index_type(array), vector), generate


def _overload_operator(symbol, operation):
    @overload(symbol)
    def overloaded(a, b):
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: operation(a, b)
        if isinstance(b, Vector) and isinstance(a, types.Float):
            return lambda a, b: operation(spread(a), b)
        if isinstance(a, Vector) and isinstance(b, types.Float):
            return lambda a, b: operation(a, spread(b))
        return None


for _symbol, _operate in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
):
    _overload_operator(_symbol, _operate)


@intrinsic
def transpose(_typing, source, index, target):
    """Store the transpose of the rows ``source[i, *index]``, i = 0 to 15, in ``target`` (16, 16)."""

    def generate(context, builder, signature, arguments):
        def row(array, kind, *indices):
            return builder.bitcast(
                cgutils.get_item_pointer(
                    context, builder, kind, make_array(kind)(context, builder, array), indices, wraparound=False
                ),
                _FLOATS.as_pointer(),
            )

        number = [context.get_constant(types.intp, i) for i in range(LANES)]
        place = cgutils.unpack_tuple(builder, arguments[1], signature.args[1].count)
        rows = [
            builder.load(row(arguments[0], signature.args[0], number[i], *place, number[0]), align=4)
            for i in range(LANES)
        ]
        for i, values in enumerate(_transposed(builder, rows)):
            builder.store(values, row(arguments[2], signature.args[2], number[i], number[0]), align=4)
        return context.get_dummy_value()

    return types.void(source, types.UniTuple(types.intp, source.ndim - 2), target), generate


def _transposed(builder, rows):
    """Return the transpose of 16 vectors, by exchange of ever larger squares."""
    size = 1
    while size < LANES:
        exchanged = list(rows)
        first = [k if not k & size else LANES + k - size for k in range(LANES)]
        second = [k + size if not k & size else LANES + k for k in range(LANES)]
        for i in range(LANES):
            if not i & size:
                pair = rows[i], rows[i + size]
                exchanged[i] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, first))
                exchanged[i + size] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, second))
        rows, size = exchanged, 2 * size
    return rows


def fma(a, b, c):
    """Return a * b + c in one instruction; ``a`` may be a single number."""
    raise NotImplementedError


@overload(fma)
def _overload_fma(a, b, c):
    if isinstance(a, Vector):
        return lambda a, b, c: _fma(a, b, c)
    return lambda a, b, c: _fma(spread(a), b, c)


def clip(x, least, most):
    """Return the numbers of a vector, no smaller and no larger than single numbers."""
    raise NotImplementedError


@overload(clip)
def _overload_clip(x, least, most):
    return lambda x, least, most: maximum(minimum(x, spread(most)), spread(least))


@compiled
def exp(x):
    """Return exp(x) to single precision, for x from -87 to 88."""
    k = _floor(fma(_F(1.44269504), x, spread(_F(0.5))))
    r = fma(_F(2.12194440e-4), k, fma(_F(-0.693359375), k, x))
    p = fma(_F(1.9875691500e-4), r, spread(_F(1.3981999507e-3)))
    p = fma(p, r, spread(_F(8.3334519073e-3)))
    p = fma(p, r, spread(_F(4.1665795894e-2)))
    p = fma(p, r, spread(_F(1.6666665459e-1)))
    p = fma(p, r, spread(_F(0.5)))
    return fma(p * r, r, r + _F(1)) * _power(k)


@compiled
def log(x):
    """Return ln(x) of positive, normal numbers to single precision."""
    mantissa = _mantissa(x)
    z = (mantissa - _F(1)) / (mantissa + _F(1))
    w = z * z
    p = fma(_F(2 / 9), w, spread(_F(2 / 7)))
    p = fma(p, w, spread(_F(2 / 5)))
    p = fma(p, w, spread(_F(2 / 3)))
    return fma(_F(0.69314718), _exponent(x), z * fma(p, w, spread(_F(2))))
