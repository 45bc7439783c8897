r"""
Conditioning of draws on data that are more exact than the noise a network was trained for.

The posterior for the stated σ is the posterior for a larger σ' times the rest of the likelihood,

.. math::

    p(\mathrm{EM} | g, \sigma) \propto p(\mathrm{EM} | g, \sigma')
    \exp\Bigl[-\frac12 \sum_i w_i (g_i - (K\,\mathrm{EM})_i)^2\Bigr], \quad w_i = 1/\sigma_i^2 - 1/\sigma_i'^2,

so that no datum counts twice. The network answers for σ'; the rest is applied here. Each component of the mixture is
moved towards its new maximum, which gives its new weight (Laplace's approximation), and each draw is moved by
randomized maximum likelihood: the draw y₀ of the component, and data with noise e added, become the coordinates y that
minimize (y - y₀)ᵀ C⁻¹ (y - y₀) + Σ w (g + e - K EM(y))², where C is the component's covariance. For a linear model this
is exact. The minimum is found by Gauss-Newton steps. They start from y₀ moved like its component.

σ is that of the observed intensity, and so too small where the intensity was observed too low: most errors are a
fraction of the true intensity. So the noise e turns g into g + e + e²/g, which is g / (1 - e/g) to second order.

The network knows of saturated channels, whose intensity is a lower limit. In plasma that it has not seen its draws may
lie below one all the same. For such a draw the channel is a datum that is |e| above the limit. What is below a limit is
excluded, rather than unlikely, so this datum has much more weight than others.

References
----------
Chen & Oliver (2012), Math. Geosci. 44, 1, https://doi.org/10.1007/s11004-011-9376-z: randomized maximum likelihood.
Alspach & Sorenson (1972), IEEE Trans. Autom. Control 17, 439, https://doi.org/10.1109/TAC.1972.1100034: sums of
Gaussians.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from sunpy_deepem.network.splits import fractions, log_em, splits

__all__ = [
    "Data",
    "Extra",
    "Gaussians",
    "Limits",
    "condition_components",
    "condition_draws",
    "split_uncertainty",
    "take",
    "to_em",
]

# σ' is σ and this fraction of the intensity, in quadrature.
_FLOOR = 0.15
# Gauss-Newton steps of components, and of draws.
COMPONENT_STEPS, DRAW_STEPS = 1, 2
# Squared distance of the residuals of a draw from those of the last step's linear model, summed over the channels, from
# which it needs more steps, and their number.
POOR, MORE_STEPS = 1.0, 3
# Largest change of a coordinate in a step, and largest coordinate.
LARGEST_STEP, LARGEST_COORDINATE = 2.0, 40.0
# Root of the weight of a limit, times σ, and steps of the draws that are below one.
_LIMIT_WEIGHT, _LIMIT_STEPS = 10.0, 5
# The second-order term of the noise is no larger than at this signal-to-noise ratio.
LEAST_SIGNAL = 5.0
# Largest residual in units of its noise; channels that contradict each other reach more.
LARGEST_RESIDUAL = 1e4
# Stands for the logarithm of a weight that is zero.
LEAST_LOG_WEIGHT = -1e30
# Rounding error of a pivot relative to the diagonal.
ROUNDING = 1e-6
# Largest EM over brightness that is allowed anyway, and smallest response of a channel that limits it.
LARGEST_EM, LEAST_RESPONSE = 3000.0, 1e-30


class Data(NamedTuple):
    """What the network has not seen of the data, all relative to brightness."""

    #: Intensity times the root of its weight, shape ``(n, channels)``.
    target: torch.Tensor
    #: Root of the weight, shape ``(n, channels)``.
    root_weight: torch.Tensor
    #: Largest intensity that a channel allows, relative to brightness, shape ``(n, channels)``.
    most: torch.Tensor


class Extra(NamedTuple):
    """The same with the response of each pixel."""

    #: Intensity times the root of its weight, shape ``(n, channels)``.
    target: torch.Tensor
    #: Response times the root of the weight, shape ``(n, channels, bins)``.
    matrix: torch.Tensor
    #: Largest EM over brightness of each bin that a channel allows, shape ``(n, bins)``.
    most: torch.Tensor


class Limits(NamedTuple):
    """Lower limits of the intensities of saturated channels, in units of σ."""

    #: Shape ``(n, channels)``; no less than any intensity, zero, for channels that are not saturated.
    intensity: torch.Tensor
    #: Response, zero for channels that are not saturated, shape ``(n, channels, bins)``.
    matrix: torch.Tensor

    def below(self, em):
        """Return where EM over brightness, shape ``(n, k, bins)``, is below a limit, shape ``(n, k, channels)``."""
        return em @ self.matrix.mT < self.intensity[:, None]


class Gaussians(NamedTuple):
    """Gaussians in coordinates: y = mean + L (scale · z), z standard normal; several to each pixel."""

    #: Shape ``(n, m, bins)``.
    mean: torch.Tensor
    #: Shape ``(n, m, bins)``.
    scale: torch.Tensor
    #: L, shape ``(n, bins, bins)``.
    factor: torch.Tensor

    def draw(self, z):
        """Return y of standard normal z, shape ``(n, m, bins)``."""
        return torch.baddbmm(self.mean, self.scale * z, self.factor.mT)

    def take(self, index):
        """Return the Gaussians with these indices, shape ``(n, k)``, of each pixel."""
        return Gaussians(take(self.mean, index), take(self.scale, index), self.factor)


def take(values, index):
    """Return ``values`` (n, m, ...) at the indices (n, k) along the second axis, shape ``(n, k, ...)``."""
    n, m = values.shape[:2]
    rows = (index + m * torch.arange(n, device=index.device)[:, None]).flatten()
    return values.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)


def split_uncertainty(intensity, uncertainty):
    """Return the σ' of the network, and the root of σ² times the weight of the rest of the likelihood."""
    coarse = torch.hypot(uncertainty, _FLOOR * intensity.clamp_min(0))
    return coarse, (1 - (uncertainty / coarse).square()).clamp_min(0).sqrt()


def to_em(y, extra):
    """Return EM over brightness, no more than each channel allows."""
    y = y.clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    return torch.minimum(log_em(y).exp_(), extra.most[:, None])


def condition_components(gaussians, extra):
    """
    Move components to where the data put them.

    Returns
    -------
    y : `~torch.Tensor`
        New maxima, shape ``(n, m, bins)``.
    log_evidence : `~torch.Tensor`
        Logarithm of the factor by which the data multiply the weight of a component, shape ``(n, m)``.
    """
    y = gaussians.mean
    for _ in range(COMPONENT_STEPS):
        y, _, log_evidence = _step(gaussians.mean, y, extra.target[:, None], gaussians, extra)
    return y, log_evidence.nan_to_num_(LEAST_LOG_WEIGHT, neginf=LEAST_LOG_WEIGHT)


def condition_draws(anchor, start, noise, gaussians, extra, limits=None):
    """
    Move draws by randomized maximum likelihood.

    Parameters
    ----------
    anchor : `~torch.Tensor`
        Draws of coordinates, shape ``(n, k, bins)``.
    start : `~torch.Tensor`
        First guess of the result, of the same shape.
    noise : `~torch.Tensor`
        Standard normal noise of the data, shape ``(k, channels)``.
    gaussians : `Gaussians`
        The Gaussian of each draw.
    extra : `Extra`
    limits : `Limits`, optional

    Returns
    -------
    `~torch.Tensor`
        EM over brightness, shape ``(n, k, bins)``.
    """
    error = noise * (extra.matrix > 0).any(dim=2)[:, None]
    target = extra.target[:, None]
    target = target + error + error.square() / target.clamp_min(LEAST_SIGNAL)
    y = start
    for _ in range(DRAW_STEPS):
        y, expected, _ = _step(anchor, y, target, gaussians, extra)
    em = to_em(y, extra)
    deviation = (target - em @ extra.matrix.mT - expected).square_().sum(dim=2)
    poor = (deviation > POOR).nonzero(as_tuple=True)
    if len(poor[0]):
        em.index_put_(poor, _finish(anchor, y, target, extra.matrix[poor[0]], poor, gaussians, extra, MORE_STEPS))
    if limits is None:
        return em
    below = limits.below(em)
    low = below.any(dim=2).nonzero(as_tuple=True)
    if len(low[0]):
        raised = torch.where(below, _LIMIT_WEIGHT * (limits.intensity[:, None] + noise.abs()), target)
        matrix = extra.matrix[low[0]] + _LIMIT_WEIGHT * below[low][:, :, None] * limits.matrix[low[0]]
        em.index_put_(low, _finish(anchor, y, raised, matrix, low, gaussians, extra, _LIMIT_STEPS))
    return em


def _finish(anchor, y, target, matrix, chosen, gaussians, extra, steps):
    """Return the EM of a few draws after more steps; ``matrix`` has one response for each of them."""
    pixel, _ = chosen
    few = Gaussians(gaussians.mean[chosen][:, None], gaussians.scale[chosen][:, None], gaussians.factor[pixel])
    data = Extra(extra.target[pixel], matrix, extra.most[pixel])
    anchor, y, target = (values[chosen][:, None] for values in (anchor, y, target))
    for _ in range(steps):
        y = _step(anchor, y, target, few, data)[0]
    return to_em(y, data)[:, 0]


def _step(anchor, y, target, gaussians, extra):
    """
    Make one Gauss-Newton step for the draws ``anchor``.

    Returns
    -------
    y : `~torch.Tensor`
        Shape ``(n, m, bins)``.
    expected : `~torch.Tensor`
        Residuals at the new y by the linear model, shape ``(n, m, channels)``.
    log_evidence : `~torch.Tensor`
        Logarithm of the evidence of the linear model, shape ``(n, m)``.
    """
    derivative = _derivative(y, extra)
    residual = (target - derivative[..., 0]).clamp_(-LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    residual = residual + (derivative @ (y - anchor)[..., None])[..., 0]
    jacobian = (derivative @ gaussians.factor[:, None]) * gaussians.scale[:, :, None]
    normal = (jacobian @ jacobian.mT).flatten(0, 1).permute(1, 2, 0).contiguous()
    normal.diagonal(dim1=0, dim2=1).add_(1)
    right = residual.flatten(0, 1).T.contiguous()
    solution, pivots = _solve(normal, right.clone())
    log_evidence = -0.5 * ((right * solution).sum(0) + pivots.log().sum(0)).view(y.shape[:2])
    # What remains of the residuals is the solution itself.
    expected = solution.T.reshape(*y.shape[:2], -1)
    change = (jacobian.mT @ expected[..., None])[..., 0] * gaussians.scale
    change = torch.baddbmm(anchor - y, change, gaussians.factor.mT).clamp_(-LARGEST_STEP, LARGEST_STEP)
    # Intensities that contradict each other wildly may overflow.
    return torch.where(torch.isfinite(change), y + change, y), expected, log_evidence


def _derivative(y, extra):
    """Return the derivative of the synthetic intensities by the coordinates, shape ``(n, m, channels, bins)``."""
    cool, hot = _halves(y.shape[-1], y.device)
    parts = to_em(y, extra)[:, :, None] * extra.matrix[:, None]
    fraction = fractions(y.clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE))[:, :, None]
    ratios = (parts @ cool).mul_(1 - fraction) - (parts @ hot).mul_(fraction)
    # The first coordinate is the logarithm of the total EM, to which intensities are proportional.
    return torch.cat([parts.sum(dim=-1, keepdim=True), ratios], dim=-1)


@lru_cache(maxsize=8)
def _halves(bins, device):
    """Return whether bins are in the cooler half of each range, and in the hotter one, shape ``(bins, bins - 1)``."""
    cool, hot = torch.zeros(2, bins, bins - 1)
    for k, (first, middle, end) in enumerate(splits(bins)):
        cool[first:middle, k] = hot[middle:end, k] = 1
    return cool.to(device), hot.to(device)


def _solve(normal, right):
    """
    Solve systems whose matrices are one plus a symmetric, positive semidefinite one, by elimination.

    For many small systems this is faster than `torch.linalg.solve`. Overwrites both arguments.

    Parameters
    ----------
    normal : `~torch.Tensor`
        The matrices, shape ``(k, k, n)``.
    right : `~torch.Tensor`
        Right-hand sides, shape ``(k, n)``.

    Returns
    -------
    solution : `~torch.Tensor`
        Shape ``(k, n)``.
    pivots : `~torch.Tensor`
        Their product is the determinant, shape ``(k, n)``.
    """
    k = len(right)
    # The pivots of one plus such a matrix are at least one; those below the rounding error would amplify it.
    least = (ROUNDING * normal.diagonal(dim1=0, dim2=1).T).clamp_(min=1)
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
