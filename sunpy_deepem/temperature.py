"""Bins of log10(T/K): `LogTBins`."""

import astropy.units as u
import numpy as np

from sunpy_deepem.units import LOG_T_TOLERANCE
from sunpy_deepem.utils.checks import real_number, whole_number

__all__ = ["BANDS", "LogTBins"]

#: Default bands of log10(T/K) for maps and light curves.
BANDS = ((5.6, 6.0), (6.0, 6.3), (6.3, 6.6), (6.6, 7.0))

# Far above any use; a response can still be folded onto so many.
_MAX_BINS = 10_000


class LogTBins:
    """
    Uniform bins in log10(T / K).

    Parameters
    ----------
    first : `float`, optional
        Center of the first bin.
    step : `float`, optional
        Width of a bin in dex.
    n : `int`, optional
        Number of bins.

    Raises
    ------
    ValueError
        If ``step`` is not positive, ``n`` is less than one or more than 10,000, or ``first`` is not finite.

    Examples
    --------
    >>> from sunpy_deepem import LogTBins
    >>> bins = LogTBins()
    >>> len(bins), bins.centers[0].item(), bins.centers[-1].item()
    (18, 5.5, 7.2)
    """

    def __init__(self, first: float = 5.5, step: float = 0.1, n: int = 18) -> None:
        first = real_number(first, "first", "a finite log10(T/K)")
        step = real_number(step, "step", "a positive width in dex")
        if not np.isfinite(first):
            msg = f"first must be a finite log10(T/K), found {first}. The default axis starts at 5.5."
            raise ValueError(msg)
        if not (np.isfinite(step) and step > 0):
            msg = f"step must be a positive width in dex, found {step}. The default is 0.1."
            raise ValueError(msg)
        self.first, self.step, self.n = first, step, whole_number(n, "n")
        if self.n > _MAX_BINS:
            msg = f"n must be at most {_MAX_BINS} bins, found {n}. The default is 18."
            raise ValueError(msg)

    @classmethod
    def from_centers(cls, centers) -> "LogTBins":
        """
        Create the bins from their centers.

        Parameters
        ----------
        centers : array-like
            Evenly spaced, ascending centers in log10(T/K), shape ``(n,)``.

        Raises
        ------
        ValueError
            If there are fewer than two centers, or they are not evenly spaced and ascending.
        """
        try:
            centers = np.asarray(centers, dtype=float)
        except (TypeError, ValueError):
            msg = f"centers must be numbers, log10(T/K) in equal steps, found {centers!r}."
            raise ValueError(msg) from None
        if centers.ndim != 1 or centers.size < 2:
            msg = f"centers must be one-dimensional with at least two values, found shape {centers.shape}."
            raise ValueError(msg)
        steps = np.diff(centers)
        if not np.isfinite(steps).all() or not np.allclose(steps, steps[0], rtol=0, atol=1e-4) or steps[0] <= 0:
            msg = (
                f"centers must ascend in equal steps of log10(T/K), found {centers}. Resample onto an even grid first."
            )
            raise ValueError(msg)
        # Rounded, so that an axis read from a file equals the axis written.
        return cls(round(centers[0], 9), round(steps.mean(), 9), centers.size)

    @property
    def centers(self) -> np.ndarray:
        """Centers of the bins in log10(T/K), shape ``(n,)``."""
        return np.round(self.first + self.step * np.arange(self.n), 9)

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins in log10(T/K), shape ``(n + 1,)``."""
        return np.round(self.first + self.step * (np.arange(self.n + 1) - 0.5), 9)

    @property
    def temperatures(self) -> u.Quantity:
        """Temperatures at the centers in K, shape ``(n,)``."""
        return 10**self.centers * u.K

    @property
    def widths(self) -> u.Quantity:
        """Widths ΔT of the bins in K, shape ``(n,)``."""
        return np.diff(10**self.edges) * u.K

    @u.quantity_input
    def em_to_dem(self, em: u.cm**-5):
        """
        Convert the EM of each bin to the mean DEM of the bin, EM / ΔT.

        Parameters
        ----------
        em : `~astropy.units.Quantity`
            EM in cm^-5, bins along the first axis.

        Returns
        -------
        `~astropy.units.Quantity`
            DEM in cm^-5 K^-1, of the same shape.

        Raises
        ------
        ValueError
            If ``em`` does not have the bins along its first axis.
        """
        return (em / self._along_first_axis(self.widths, em, "em")).to(u.cm**-5 / u.K)

    @u.quantity_input
    def dem_to_em(self, dem: u.cm**-5 / u.K):
        """
        Convert the mean DEM of each bin to the EM of the bin, the inverse of `em_to_dem`.

        Parameters
        ----------
        dem : `~astropy.units.Quantity`
            DEM in cm^-5 K^-1, bins along the first axis.

        Returns
        -------
        `~astropy.units.Quantity`
            EM in cm^-5, of the same shape.

        Raises
        ------
        ValueError
            If ``dem`` does not have the bins along its first axis.
        """
        return (dem * self._along_first_axis(self.widths, dem, "dem")).to(u.cm**-5)

    def _along_first_axis(self, values, array, name):
        if array.shape[:1] != (self.n,):
            msg = f"{name} must have the {self.n} bins along its first axis, found shape {array.shape}."
            raise ValueError(msg)
        return values.reshape(-1, *[1] * (array.ndim - 1))

    def __getitem__(self, item):
        if not isinstance(item, slice):
            msg = f"LogTBins take slices only, as in bins[3:9], found {item!r}. Use bins.centers[i] for one bin."
            raise TypeError(msg)
        index = range(self.n)[item]
        if index.step != 1 or len(index) == 0:
            msg = f"A slice of LogTBins must be contiguous, ascending and not empty, found {item}. Use a step of 1."
            raise ValueError(msg)
        return LogTBins(round(self.first + self.step * index.start, 9), self.step, len(index))

    def __len__(self):
        return self.n

    def __eq__(self, other):
        if not isinstance(other, LogTBins):
            return NotImplemented
        return self._key == other._key

    def __hash__(self):
        return hash(self._key)

    @property
    def _key(self):
        # Rounded outer edges, so that equal bins have equal hashes despite rounding errors of files.
        first, last = (round(edge / LOG_T_TOLERANCE) for edge in self.edges[[0, -1]])
        return first, last, self.n

    def __repr__(self):
        return f"LogTBins(first={self.first:g}, step={self.step:g}, n={self.n})"
