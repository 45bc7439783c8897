r"""
Conditioning of draws on data that are more exact than the noise a network was trained for.

The posterior for the stated σ is the posterior for a larger σ' times the rest of the likelihood,

.. math::

    p(\mathrm{EM} | g, \sigma) \propto p(\mathrm{EM} | g, \sigma')
    \exp\Bigl[-\frac12 \sum_i w_i (g_i - (K\,\mathrm{EM})_i)^2\Bigr], \quad w_i = 1/\sigma_i^2 - 1/\sigma_i'^2,

so that no datum counts twice. The network answers for σ'; the rest is applied here. Each component of the mixture is
moved to its new maximum, which gives its new weight (Laplace's approximation), and each draw is moved by randomized
maximum likelihood: the draw z₀ of the component, in coordinates in which that is a standard normal, and data with
noise e added become the z that minimizes |z − z₀|² + Σ w (g + e − K EM(z))², found by Gauss-Newton steps. For a linear
model this is exact.

References
----------
Chen & Oliver (2012), Math. Geosci. 44, 1, https://doi.org/10.1007/s11004-011-9376-z: randomized maximum likelihood.
Alspach & Sorenson (1972), IEEE Trans. Autom. Control 17, 439, https://doi.org/10.1109/TAC.1972.1100034: sums of
Gaussians.
"""

from typing import NamedTuple

import torch

__all__ = ["Conditioned", "Extra", "Gaussians", "condition_components", "condition_draws", "split_uncertainty", "to_em"]

# σ' is σ and this fraction of the intensity in quadrature.
_FLOOR = 0.2
# Gauss-Newton steps of the components, each with this fraction of the weight of the data.
_COMPONENT_STEPS = (0.1, 0.5, 1.0)
# Steps of the draws after the first one, in which the model is linear around the component's maximum.
_DRAW_STEPS = 1
# Sum of squared residuals of a draw above which it gets more steps, and how many.
_POOR, _MORE_STEPS = 30.0, 10
# Largest change of ln(EM) in a step.
_LARGEST_STEP = 2.0
# Largest residual in units of its noise; channels that contradict each other reach more.
_LARGEST_RESIDUAL = 1e4
# Stands for the logarithm of a weight that is zero.
_LEAST_LOG_WEIGHT = -1e30
# Rounding error of a pivot relative to the diagonal.
_ROUNDING = 1e-6
# Smallest ln(EM / brightness).
_LEAST_LOG_EM = -16.0


class Extra(NamedTuple):
    """What the network has not seen of the data, all relative to brightness."""

    #: Intensity times the root of its weight, shape ``(n, channels)``.
    target: torch.Tensor
    #: Response times the root of the weight, shape ``(n, channels, bins)``.
    matrix: torch.Tensor
    #: Largest ln(EM / brightness) of each bin that a channel allows, shape ``(n, bins)``.
    log_most: torch.Tensor


class Gaussians(NamedTuple):
    """Gaussians in ln(EM / brightness): y = mean + L (scale · z), z standard normal; several to each pixel."""

    #: Shape ``(n, m, bins)``.
    mean: torch.Tensor
    #: Shape ``(n, m, bins)``.
    scale: torch.Tensor
    #: L, shape ``(n, bins, bins)``.
    factor: torch.Tensor

    def log_em(self, z):
        """Return y, shape ``(n, m, bins)``."""
        return self.mean + (self.scale * z) @ self.factor.mT

    def take(self, index):
        """Return the Gaussians with these indices, shape ``(n, k)``, of each pixel."""
        return Gaussians(take(self.mean, index), take(self.scale, index), self.factor)


class Conditioned(NamedTuple):
    """Components after conditioning on the data."""

    #: New maxima, shape ``(n, m, bins)``.
    z: torch.Tensor
    #: Logarithm of the factor by which the data multiply the weight of a component, shape ``(n, m)``.
    log_evidence: torch.Tensor
    #: Target minus the synthetic intensity of the model that is linear around the maximum, at z = 0, shape
    #: ``(n, m, channels)``.
    offset: torch.Tensor
    #: Derivative of the synthetic intensity by z, shape ``(n, m, channels, bins)``.
    jacobian: torch.Tensor
    #: Inverse of the covariance of the intensities, shape ``(n, m, channels, channels)``.
    precision: torch.Tensor


def take(values, index):
    """Return ``values`` (n, m, ...) at the indices (n, k) along the second axis, shape ``(n, k, ...)``."""
    n, m = values.shape[:2]
    rows = (index + m * torch.arange(n, device=index.device)[:, None]).flatten()
    return values.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)


def split_uncertainty(intensity, uncertainty):
    """Return the σ' of the network, and the root of σ² times the weight of the rest of the likelihood."""
    coarse = torch.hypot(uncertainty, _FLOOR * intensity.clamp_min(0))
    return coarse, (1 - (uncertainty / coarse).square()).clamp_min(0).sqrt()


def to_em(log_em, extra):
    """Return EM over brightness, no more than each channel allows."""
    return torch.exp(torch.minimum(log_em, extra.log_most[:, None]).clamp_min(_LEAST_LOG_EM))


def condition_components(gaussians, extra):
    """
    Move components to where the data put them.

    Returns
    -------
    `Conditioned`
    """
    anchor = z = torch.zeros_like(gaussians.mean)
    for part in _COMPONENT_STEPS:
        z = _step(anchor, z, 0.0, gaussians, extra, part)
    residual, jacobian = _linearize(z, gaussians, extra)
    n, m, channels = residual.shape
    unit = torch.eye(channels, dtype=z.dtype, device=z.device)[:, :, None].expand(-1, -1, n * m)
    precision, pivots = _solve(_normal_matrix(jacobian), unit)
    misfit = z.square().sum(2) + residual.square().sum(2)
    log_evidence = -0.5 * (misfit + torch.log(pivots).sum(0).view(n, m))
    return Conditioned(
        z,
        log_evidence.nan_to_num_(_LEAST_LOG_WEIGHT, neginf=_LEAST_LOG_WEIGHT),
        residual + _times(jacobian, z),
        jacobian,
        precision.permute(2, 0, 1).reshape(n, m, channels, channels),
    )


def condition_draws(anchor, noise, gaussians, conditioned, index, extra):
    """
    Move draws by randomized maximum likelihood.

    Parameters
    ----------
    anchor : `~torch.Tensor`
        Draws z of the Gaussians, shape ``(n, k, bins)``.
    noise : `~torch.Tensor`
        Standard normal noise of the data, shape ``(k, channels)``.
    gaussians : `Gaussians`
        The Gaussian of each draw.
    conditioned : `Conditioned`
        The components.
    index : `~torch.Tensor`
        The component of each draw, shape ``(n, k)``.
    extra : `Extra`

    Returns
    -------
    `~torch.Tensor`
        New z.
    """
    noise = noise * (extra.matrix > 0).any(dim=2)[:, None]
    jacobian = take(conditioned.jacobian, index)
    residual = take(conditioned.offset, index) + noise - _times(jacobian, anchor)
    z = anchor + _transposed_times(jacobian, _times(take(conditioned.precision, index), residual))
    z = torch.where(torch.isfinite(z), z, anchor)
    for _ in range(_DRAW_STEPS):
        z = _step(anchor, z, noise, gaussians, extra)
    return _finish(anchor, z, noise, gaussians, extra)


def _finish(anchor, z, noise, gaussians, extra):
    """Continue with the few draws that are still far from the data, mostly too bright."""
    em = to_em(gaussians.log_em(z), extra)
    misfit = (extra.target[:, None] + noise - em @ extra.matrix.mT).square().sum(dim=2)
    pixel, draw = (misfit > _POOR).nonzero(as_tuple=True)
    if not len(pixel):
        return z
    few = Gaussians(*(values[pixel, draw, None] for values in gaussians[:2]), gaussians.factor[pixel])
    data = Extra(*(values[pixel] for values in extra))
    noise = noise.expand(*z.shape[:2], -1)[pixel, draw, None]
    anchor, moved = anchor[pixel, draw, None], z[pixel, draw, None]
    for _ in range(_MORE_STEPS):
        moved = _step(anchor, moved, noise, few, data)
    return z.index_put((pixel, draw), moved[:, 0])


def _step(anchor, z, noise, gaussians, extra, part=1.0):
    """Return z after one Gauss-Newton step for the draws ``anchor``, with a fraction of the weight of the data."""
    residual, jacobian = _linearize(z, gaussians, extra)
    if part != 1:
        residual, jacobian = residual * part**0.5, jacobian * part**0.5
    residual = residual + noise + _times(jacobian, z - anchor)
    factor = _solve(_normal_matrix(jacobian), residual.flatten(0, 1).T)[0]
    change = anchor - z + _transposed_times(jacobian, factor.T.view(residual.shape))
    largest = ((gaussians.scale * change) @ gaussians.factor.mT).abs().amax(2, keepdim=True)
    moved = z + change * (_LARGEST_STEP / largest.clamp_min(1e-9)).clamp_max(1)
    # Intensities that contradict each other wildly may overflow.
    return torch.where(torch.isfinite(moved), moved, z)


def _linearize(z, gaussians, extra):
    """Return the target minus the synthetic intensity at z, and the derivative of the latter by z."""
    n, m, bins = z.shape
    channels = extra.matrix.shape[1]
    em = to_em(gaussians.log_em(z), extra)
    residual = (extra.target[:, None] - em @ extra.matrix.mT).clamp(-_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
    jacobian = (em[:, :, None] * extra.matrix[:, None]).view(n, m * channels, bins) @ gaussians.factor
    return residual, jacobian.view(n, m, channels, bins).mul_(gaussians.scale[:, :, None])


def _times(matrices, vectors):
    return (matrices @ vectors[..., None])[..., 0]


def _transposed_times(matrices, vectors):
    return (vectors[:, :, None] @ matrices)[:, :, 0]


def _normal_matrix(jacobian):
    """Return 1 + J Jᵀ, shape ``(channels, channels, n × m)``."""
    jacobian = jacobian.flatten(0, 1)
    normal = torch.bmm(jacobian, jacobian.mT).permute(1, 2, 0).contiguous()
    normal.diagonal(dim1=0, dim2=1).add_(1)
    return normal


def _solve(normal, right):
    """
    Solve systems whose matrices are one plus a symmetric, positive semidefinite one, by elimination.

    For many small systems this is faster than `torch.linalg.solve`. Overwrites ``normal``, shape ``(k, k, n)``.

    Returns
    -------
    solution : `~torch.Tensor`
        For the right-hand sides ``right``, shape ``(k, n)`` or ``(k, k, n)``.
    pivots : `~torch.Tensor`
        Their product is the determinant, shape ``(k, n)``.
    """
    right = right.clone()
    k = len(right)
    # The pivots of one plus such a matrix are at least one; those below the rounding error would amplify it.
    least = (_ROUNDING * normal.diagonal(dim1=0, dim2=1).T).clamp_(min=1)
    for row in range(k):
        torch.maximum(normal[row, row], least[row], out=normal[row, row])
        for below in range(row + 1, k):
            factor = normal[row, below] / normal[row, row]
            normal[below, below:].addcmul_(factor, normal[row, below:], value=-1)
            right[below].addcmul_(factor, right[row], value=-1)
    for row in reversed(range(k)):
        right[row] /= normal[row, row]
        for above in range(row):
            right[above].addcmul_(normal[above, row], right[row], value=-1)
    return right, normal.diagonal(dim1=0, dim2=1).T
