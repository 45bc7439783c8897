r"""
Conditioning of draws on data that are more exact than the noise a network was trained for.

The posterior for the stated σ is the posterior for a larger σ' times the rest of the likelihood,

.. math::

    p(\mathrm{EM} | g, \sigma) \propto p(\mathrm{EM} | g, \sigma')
    \exp\Bigl[-\frac12 \sum_i w_i (g_i - (K\,\mathrm{EM})_i)^2\Bigr], \quad w_i = 1/\sigma_i^2 - 1/\sigma_i'^2,

so that no datum counts twice. The network answers for σ'; the rest is applied here. Each component of the mixture is
moved to its new maximum, which gives its new weight (Laplace's approximation), and each draw is moved by randomized
maximum likelihood: the draw y₀ of the component, and data with noise e added, become the y = ln(EM / brightness) that
minimizes (y - y₀)ᵀ C⁻¹ (y - y₀) + Σ w (g + e - K exp(y))², where C is the component's covariance. For a linear model
this is exact. The minimum is found by Gauss-Newton steps. They start from y₀ moved like its component, after a few
multiplicative updates as in the deconvolution of images. Without these, a draw that is far too bright needs many steps.

References
----------
Chen & Oliver (2012), Math. Geosci. 44, 1, https://doi.org/10.1007/s11004-011-9376-z: randomized maximum likelihood.
Alspach & Sorenson (1972), IEEE Trans. Autom. Control 17, 439, https://doi.org/10.1109/TAC.1972.1100034: sums of
Gaussians.
Richardson (1972), JOSA 62, 55, https://doi.org/10.1364/JOSA.62.000055: multiplicative updates.
"""

from typing import NamedTuple

import torch

__all__ = [
    "Data",
    "Extra",
    "Gaussians",
    "condition_components",
    "condition_draws",
    "split_uncertainty",
    "take",
    "to_em",
]

# σ' is this multiple of σ, and this fraction of the intensity, in quadrature. The former limits the EM that draws have
# in bins that only channels full of noise can see.
_MULTIPLE, _FLOOR = 1.4, 0.15
# Multiplicative updates before the first Gauss-Newton step, and the residual in units of its noise from which a channel
# takes part in them, by no more than this factor.
UPDATES, SIGNIFICANT, LARGEST_FACTOR = 3, 3.0, 20.0
# Gauss-Newton steps of components, and of draws.
COMPONENT_STEPS, DRAW_STEPS = 2, 2
# Sum of squared residuals of a draw above which it gets more steps, and how many.
POOR, MORE_STEPS = 20.0, 3
# Largest increase of ln(EM) in a step.
LARGEST_STEP = 1.0
# Largest residual in units of its noise; channels that contradict each other reach more.
LARGEST_RESIDUAL = 1e4
# Stands for the logarithm of a weight that is zero.
LEAST_LOG_WEIGHT = -1e30
# Draws whose derivatives are computed at a time on a CPU.
_CACHED = 1024
# Rounding error of a pivot relative to the diagonal.
ROUNDING = 1e-6
# Smallest ln(EM / brightness), and the largest one anyway.
LEAST_LOG_EM, LARGEST_LOG_EM = -16.0, 8.0


class Data(NamedTuple):
    """What the network has not seen of the data, all relative to brightness."""

    #: Intensity times the root of its weight, shape ``(n, channels)``.
    target: torch.Tensor
    #: Root of the weight, shape ``(n, channels)``.
    root_weight: torch.Tensor
    #: Logarithm of the largest intensity that a channel allows, relative to brightness, shape ``(n, channels)``.
    log_most: torch.Tensor


class Extra(NamedTuple):
    """The same with the response of each pixel."""

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
    coarse = torch.hypot(_MULTIPLE * uncertainty, _FLOOR * intensity.clamp_min(0))
    return coarse, (1 - (uncertainty / coarse).square()).clamp_min(0).sqrt()


def to_em(log_em, extra):
    """Return EM over brightness, no more than each channel allows."""
    return torch.minimum(log_em, extra.log_most[:, None]).clamp_min_(LEAST_LOG_EM).exp_()


def condition_components(gaussians, extra):
    """
    Move components to where the data put them.

    Returns
    -------
    log_em : `~torch.Tensor`
        New maxima, shape ``(n, m, bins)``.
    log_evidence : `~torch.Tensor`
        Logarithm of the factor by which the data multiply the weight of a component, shape ``(n, m)``.
    """
    target = extra.target[:, None]
    y = _update(gaussians.mean, target, extra)
    for _ in range(COMPONENT_STEPS):
        y, log_evidence = _step(gaussians.mean, y, target, gaussians, extra)
    return y, log_evidence.nan_to_num_(LEAST_LOG_WEIGHT, neginf=LEAST_LOG_WEIGHT)


def condition_draws(anchor, start, noise, gaussians, extra):
    """
    Move draws by randomized maximum likelihood.

    Parameters
    ----------
    anchor : `~torch.Tensor`
        Draws of ln(EM / brightness), shape ``(n, k, bins)``.
    start : `~torch.Tensor`
        First guess of the result, of the same shape.
    noise : `~torch.Tensor`
        Standard normal noise of the data, shape ``(k, channels)``.
    gaussians : `Gaussians`
        The Gaussian of each draw.
    extra : `Extra`

    Returns
    -------
    `~torch.Tensor`
        EM over brightness, shape ``(n, k, bins)``.
    """
    target = extra.target[:, None] + noise * (extra.matrix > 0).any(dim=2)[:, None]
    y = _update(start, target, extra)
    for _ in range(DRAW_STEPS):
        y = _step(anchor, y, target, gaussians, extra)[0]
    em = to_em(y, extra)
    misfit = (target - em @ extra.matrix.mT).square_().sum(dim=2)
    poor = (misfit > POOR).nonzero(as_tuple=True)
    if len(poor[0]):
        em.index_put_(poor, _finish(*(values[poor] for values in (anchor, y, target)), poor, gaussians, extra))
    return em


def _finish(anchor, y, target, poor, gaussians, extra):
    """Return the EM of the few draws that are still far from the data after more steps."""
    pixel, _ = poor
    few = Gaussians(gaussians.mean[poor][:, None], gaussians.scale[poor][:, None], gaussians.factor[pixel])
    data = Extra(*(values[pixel] for values in extra))
    y = y[:, None]
    for _ in range(MORE_STEPS):
        y = _step(anchor[:, None], y, target[:, None], few, data)[0]
    return to_em(y, data)[:, 0]


def _update(y, target, extra):
    """Return y after multiplicative updates of the EM, by the ratios of the intensities that disagree with the data."""
    share = extra.matrix / extra.matrix.sum(dim=1, keepdim=True).clamp_min(1e-20)
    y = torch.minimum(y, extra.log_most[:, None])
    for _ in range(UPDATES):
        synthetic = y.clamp_min(LEAST_LOG_EM).exp_() @ extra.matrix.mT
        residual = target - synthetic
        ratio = (target / synthetic).clamp_(1 / LARGEST_FACTOR, LARGEST_FACTOR).log_()
        ratio.masked_fill_(residual.abs_() <= SIGNIFICANT, 0)
        y = torch.baddbmm(y, ratio.nan_to_num_(0.0), share)
    return y


def _step(anchor, y, target, gaussians, extra):
    """
    Make one Gauss-Newton step for the draws ``anchor``.

    Returns
    -------
    y : `~torch.Tensor`
        Shape ``(n, m, bins)``.
    log_evidence : `~torch.Tensor`
        Logarithm of the evidence of the linear model, shape ``(n, m)``.
    """
    em = to_em(y, extra)
    residual = (target - em @ extra.matrix.mT).clamp_(-LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    residual = torch.baddbmm(residual, em * (y - anchor), extra.matrix.mT)
    right = residual.flatten(0, 1).T.contiguous()
    solution, pivots = _solve(_normal_matrix(em, gaussians, extra), right.clone())
    log_evidence = -0.5 * ((right * solution).sum(0) + pivots.log().sum(0)).view(y.shape[:2])
    change = em.mul_(solution.T.reshape(*y.shape[:2], len(solution)) @ extra.matrix)
    change = (change @ gaussians.factor).mul_(gaussians.scale).mul_(gaussians.scale)
    moved = torch.minimum(torch.baddbmm(anchor, change, gaussians.factor.mT), y + LARGEST_STEP)
    # Intensities that contradict each other wildly may overflow.
    return torch.where(torch.isfinite(moved), moved, y), log_evidence


def _normal_matrix(em, gaussians, extra):
    """
    Return 1 + J Jᵀ, shape ``(channels, channels, n × m)``.

    J is the derivative of the synthetic intensity by the coordinates in which the Gaussian is standard normal. It is
    large, and so computed for a few pixels at a time, in the processor's cache.
    """
    n, m, bins = em.shape
    channels = extra.matrix.shape[1]
    size = max(1, _CACHED // m) if em.device.type == "cpu" else n
    normal = em.new_empty(n, m, channels, channels)
    for part in (slice(start, start + size) for start in range(0, n, size)):
        jacobian = (em[part, :, None] * extra.matrix[part, None]).view(-1, m * channels, bins) @ gaussians.factor[part]
        jacobian = jacobian.view(-1, m, channels, bins).mul_(gaussians.scale[part, :, None])
        torch.matmul(jacobian, jacobian.mT, out=normal[part])
    normal = normal.flatten(0, 1).permute(1, 2, 0).contiguous()
    normal.diagonal(dim1=0, dim2=1).add_(1)
    return normal


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
