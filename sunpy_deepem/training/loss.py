"""Loss of the training: `DEMLoss`."""

from dataclasses import dataclass

import torch

from sunpy_deepem.units import COVERAGE

__all__ = ["DEMLoss"]

# Residuals beyond this many σ count linearly, so that a few outliers do not dominate the training.
_HUBER_WIDTH = 3.0
# Spreads below this fraction of a pixel's total EM are not resolved.
_LEAST_SPREAD = 1e-3
# Total EM in 10^25 cm^-5 below which plasma is invisible.
_LEAST_TOTAL = 1e-6
# Smallest total EM of an answer to which errors are relative, as a fraction of the true one.
_LEAST_SCALE = 0.1
# Largest contribution of one pixel.
_MAX_DISTRIBUTION = 20.0


@dataclass(frozen=True)
class DEMLoss:
    """
    Weighted sum of four terms; a weight of zero omits a term.

    Attributes
    ----------
    distribution : `float`
        Squared error of the EM per bin and of its cumulative sum over log T, both relative to the total EM of the
        answer. Its minimum is the posterior mean.
    chapter : `float`
        The DeepEM chapter's: mean squared error of √(EM / 10²⁵ cm⁻⁵).
    forward : `float`
        Difference between synthetic and observed intensities in units of σ, the first improvement that the chapter
        suggests.
    spread : `float`
        Quantile loss of the logarithm of the EM's spread. Its minimum is where EM ± spread holds the truth in 68.27 %
        of all cases, whatever the shape of the posterior. It does not affect the mean.

    Raises
    ------
    ValueError
        If a weight is negative or all are zero.

    References
    ----------
    Koenker & Bassett (1978), Econometrica 46, 33, https://doi.org/10.2307/1913643: the quantile loss.
    """

    distribution: float = 1.0
    chapter: float = 0.0
    forward: float = 1.0
    spread: float = 0.05

    def __post_init__(self):
        weights = (self.distribution, self.chapter, self.forward, self.spread)
        if min(weights) < 0 or max(weights) == 0 or not all(weight < float("inf") for weight in weights):
            msg = f"The weights of DEMLoss must be finite, not negative and not all zero, found {self}."
            raise ValueError(msg)

    @classmethod
    def from_helioml(cls):
        """The loss of the DeepEM chapter alone."""
        return cls(distribution=0.0, chapter=1.0, forward=0.0, spread=0.0)

    def __call__(self, em, spread, truth, intensity, uncertainty, matrix):
        """
        Return the loss of a batch.

        Parameters
        ----------
        em, spread, truth : `~torch.Tensor`
            EM in units of 10^25 cm^-5, shape ``(batch, bins, ny, nx)``; ``spread`` may be `None`.
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(batch, 6, ny, nx)``.
        matrix : `~torch.Tensor`
            Response in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(6, bins)``.

        Returns
        -------
        `~torch.Tensor`
            A scalar.
        """
        # Pixels kept without a solution may have no EM.
        total = truth.sum(dim=1, keepdim=True).clamp_min(_LEAST_TOTAL)
        # Relative to the answer's total: relative to the true one, the mean would be biased towards little EM.
        scale = torch.maximum(em.detach().sum(dim=1, keepdim=True), _LEAST_SCALE * total)
        loss = em.new_zeros(())
        if self.distribution:
            error = (em - truth) / scale
            term = (error**2).sum(dim=1) + (error.cumsum(dim=1) ** 2).sum(dim=1)
            loss = loss + self.distribution * term.clamp_max(_MAX_DISTRIBUTION).mean()
        if self.chapter:
            loss = loss + self.chapter * ((_signed_sqrt(em) - truth.sqrt()) ** 2).mean()
        if self.forward:
            residual = (torch.einsum("ij,bjyx->biyx", matrix, em) - intensity) / uncertainty
            term = torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), delta=_HUBER_WIDTH)
            loss = loss + self.forward * term
        if self.spread and spread is not None:
            error = torch.log((em.detach() - truth).abs() / total + _LEAST_SPREAD)
            excess = error - torch.log(spread / total + _LEAST_SPREAD)
            loss = loss + self.spread * torch.maximum(COVERAGE * excess, (COVERAGE - 1) * excess).mean()
        return loss


def _signed_sqrt(values):
    """Return sign(x) √|x|, differentiable at zero, for networks whose output may be negative."""
    return values.sign() * (values.abs() + 1e-12).sqrt()
