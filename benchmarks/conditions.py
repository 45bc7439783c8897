"""
Conditions of `calibration`: families of pixels, noise, channels that are missing or saturated, and a wrong response.

All intensities are in DN s^-1 pix^-1, shape ``(6, n)``.
"""

from typing import NamedTuple

import astropy.units as u
import numpy as np
from families import Case, observe

from sunpy_deepem import CHANNELS, TemperatureResponse
from sunpy_deepem.response import Emissivity
from sunpy_deepem.training import simulate_observation

MAIN = Case(64, 0.1)
#: Error of one channel's response that the posterior does not know.
WRONG = 0.25


class Observed(NamedTuple):
    """Pixels of known EM."""

    #: True EM in cm^-5, shape ``(bins, n)``.
    truth: np.ndarray
    #: DN s^-1 pix^-1, shape ``(channels, n)``.
    intensity: np.ndarray
    uncertainty: np.ndarray
    #: Saturated channels, of the same shape.
    lower_limit: np.ndarray


class Condition(NamedTuple):
    """What is observed."""

    family: str
    case: Case = MAIN
    #: Channels left out of each pixel, at random.
    missing: int = 0
    #: Channels of each pixel that saturate above a random threshold.
    saturated: int = 0
    #: Name of a wrong response of `wrong_responses`, empty for the right one.
    response: str = ""

    @property
    def plain(self):
        """Whether all channels are present, and the response is right."""
        return not (self.missing or self.saturated or self.response)

    @property
    def channels(self):
        """The channels in words."""
        return f"{self.saturated} may saturate" if self.saturated else f"{len(CHANNELS) - self.missing} channels"

    @property
    def name(self):
        """Short name for tables."""
        channels = f", {self.channels}" if self.missing or self.saturated else ""
        return f"{self.family}, {self.case.name}{channels}" + (f", {self.response}" if self.response else "")


def pixels(condition, n, prior, response, seed):
    """Return ``n`` pixels as `Observed`; ``response`` is that of the instrument that observes them."""
    if condition.family == "prior":
        truth = prior.sample(n, seed=np.random.default_rng([seed, 10]))
        noise = {"systematic": condition.case.systematic, "n_sample": condition.case.n_sample}
        intensity, uncertainty = simulate_observation(truth, response, seed=[seed, 11], **noise)
    else:
        truth, intensity, uncertainty = observe(condition.family, condition.case, n, response, seed=seed)
    rng = np.random.default_rng([seed, 12])
    order = rng.random(intensity.shape).argsort(axis=0)
    intensity = np.where(order < condition.missing, np.nan, intensity)
    if not condition.saturated:
        return Observed(truth, intensity, uncertainty, np.zeros(intensity.shape, dtype=bool))
    # Thresholds are other pixels' intensities; with limits that depend on the pixel itself they would be informative.
    threshold = rng.permuted(intensity, axis=1)
    lower = (order < condition.saturated) & (intensity > threshold) & (threshold > 0)
    uncertainty = np.where(lower, uncertainty * threshold / intensity, uncertainty)
    return Observed(truth, np.where(lower, threshold, intensity), uncertainty, lower)


def wrong_responses(response, instrument=None):
    """
    Return responses that the posterior does not know, by name.

    Parameters
    ----------
    response : `TemperatureResponse`
        The response of the posterior.
    instrument : `str` or `pathlib.Path`, optional
        Instrument file for `TemperatureResponse.from_aiapy`, for a response with photospheric abundances, which also
        needs xrtpy.

    Returns
    -------
    `dict`
    """
    found = {}
    for index, channel in enumerate(response.channels):
        for error in (WRONG, -WRONG):
            factor = np.ones((len(response.channels), 1))
            factor[index] += error
            found[f"{channel} Å {100 * error:+.0f} %".replace("-", "−")] = _scaled(response, factor)
    if instrument is not None:
        found["photospheric abundances"] = _scaled(response, _abundance_factor(response, instrument))
    return found


def _scaled(response, factor):
    """Return a response with all curves multiplied by a factor, shape ``(channels, temperatures)``."""
    return TemperatureResponse(
        response.temperature, response.curves * factor, bins=response.bins, channels=response.channels
    )


def _abundance_factor(response, instrument):
    """
    Return photospheric over coronal response by channel and temperature, one for the iron line of 171 Å.

    It is that of xrtpy's spectra from 1 to 400 Å. EM is thus stated for the iron of the coronal abundances.
    """
    curves = []
    for abundance in ("photospheric", "coronal"):
        short = TemperatureResponse.from_aiapy(
            instrument_file=instrument,
            emissivity=Emissivity.from_xrtpy(abundance),
            wavelength_range=[1, 400] * u.angstrom,
            eve=False,
            chiantifix=False,
        )
        log_t = np.log10(short.temperature.value)
        curves.append(np.maximum(short.curves.value, 1e-40))
    ratio = curves[0] / curves[1]
    iron = CHANNELS.index(171)
    ratio /= ratio[iron, curves[1][iron].argmax()]
    return np.stack([np.interp(np.log10(response.temperature.value), log_t, row) for row in ratio])
