"""Maps, EM, cube and regions of the synthetic Sun."""

from operator import index

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.time import TimeDelta
from sunpy.coordinates import get_earth
from sunpy.coordinates.sun import L0, carrington_rotation_number
from sunpy.time import parse_time

from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.calibrate.photometry import counts_uncertainty, native_pixels
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.sample.active_regions import ACTIVE_REGIONS, FLARE_RADIUS
from sunpy_deepem.sample.plasma import COMPONENTS, em_per_bin
from sunpy_deepem.sample.scene import directions, get_scene, hole_depth
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.checks import one_time

__all__ = ["sample_cube", "sample_em", "sample_maps", "sample_regions"]

_OBSTIME = "2014-01-01T00:00:00"
_FIELD_OF_VIEW = 2457.6 * u.arcsec
# NOTE: RSUN_REF of AIA's headers, not the IAU value.
_RSUN_REF = 696000 * u.km

# Maps are computed in blocks of rows of this many pixels to limit memory.
_PIXELS_PER_BLOCK = 2**20
# Coarser maps are means over at least this many samples a side, as binned maps are means of native pixels.
_LEAST_SAMPLES = 512

# Exposure time in s, telescope, and start in s after the nominal time. The exposures fall within AIA's 12 s cadence, in
# the order of the channels, so that sorting by date keeps that order.
_EXPOSURES = {
    94: (2.900816, 4, 0.12),
    131: (2.901307, 1, 1.62),
    171: (1.999597, 3, 4.34),
    193: (2.000014, 2, 5.84),
    211: (2.900819, 2, 8.62),
    335: (2.900797, 1, 10.12),
}


def sample_em(shape=(1024, 1024), *, seed=0, bins=None, obstime=_OBSTIME):
    """
    Return the emission measure of the synthetic Sun.

    It has quiet regions, a polar and an equatorial coronal hole, two active regions with loops of different
    temperatures, one of them with a small flare, an active region at the east limb, and a corona. `sample_regions`
    returns their positions.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels ``(ny, nx)``, equal along both axes. The field of view is always AIA's, 2457.6 arcsec; a pixel
        holds the mean over its area.
    seed : `int`, optional
        Seed of network, loops and rays. The positions of the regions do not depend on it.
    bins : `LogTBins`, optional
        Bins of log T, by default 18 with centers from 5.5 to 7.2. Plasma outside of them is left out.
    obstime : `~astropy.time.Time` or `str`, optional
        Time that determines the apparent size of the Sun.

    Returns
    -------
    `~astropy.units.Quantity`
        EM per bin in cm-5, shape ``(number of bins, ny, nx)``, single precision.

    Raises
    ------
    TypeError
        If ``shape`` or ``seed`` are not integers.
    ValueError
        If ``shape`` is not two equal positive numbers, or ``seed`` is negative.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_em
    >>> sample_em((64, 64)).shape
    (18, 64, 64)
    """
    n, scene = _square_side(shape), get_scene(_checked_seed(seed))
    per_bin = em_per_bin(LogTBins() if bins is None else bins).astype(np.float32)
    _, radius = _observer(one_time(obstime, "obstime"))
    em = np.empty((len(per_bin), n, n), dtype=np.float32)
    for rows, amplitudes in _blocks(scene, n, radius):
        em[:, rows] = np.tensordot(per_bin, amplitudes, axes=1)
    return u.Quantity(em, "cm-5", copy=False)


def sample_maps(shape=(1024, 1024), *, noise=True, seed=0, obstime=_OBSTIME, response=None):
    """
    Return six AIA maps of the synthetic Sun at level 1.5.

    Counts are K · EM · exposure time · degradation, with K from ``response``, and need the same calibration as real
    data.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels ``(ny, nx)``, equal along both axes. The field of view is AIA's, 2457.6 arcsec.
    noise : `bool`, optional
        Whether to add AIA's noise, that of the mean of the native pixels in each pixel.
    seed : `int`, optional
        Seed of the Sun, see `sample_em`, and of the noise.
    obstime : `~astropy.time.Time` or `str`, optional
        Time of the exposures, which start within the following 12 s.
    response : `TemperatureResponse`, optional
        Response, by default `TemperatureResponse.default`. EM is uniform per dex within its bins.

    Returns
    -------
    `~sunpy.map.MapSequence`
        Six `~sunpy.map.sources.AIAMap` in DN, not per second, not corrected for degradation, single precision, in the
        order of `sunpy_deepem.CHANNELS` and of time. Their headers identify them as synthetic.

    Raises
    ------
    TypeError
        If ``shape`` or ``seed`` are not integers.
    ValueError
        If ``shape`` is not two equal positive numbers, or ``seed`` is negative.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_maps
    >>> [int(m.wavelength.value) for m in sample_maps((64, 64))]
    [94, 131, 171, 193, 211, 335]
    """
    n, seed = _square_side(shape), _checked_seed(seed)
    response = TemperatureResponse.default() if response is None else response
    obstime = one_time(obstime, "obstime")
    observer, radius = _observer(obstime)
    headers = _headers(n, obstime, observer, radius)
    counts = _counts(n, seed, radius, headers, response)
    if noise:
        for channel, image in zip(CHANNELS, counts, strict=True):
            _add_noise(image, channel, seed)
    return sunpy.map.Map(list(zip(counts, headers, strict=True)), sequence=True)


def _counts(n, seed, radius, headers, response):
    """Counts of the six channels in DN without noise, shape (6, n, n)."""
    scale = [
        header["exptime"] * degradation_factor(header["wavelnth"], parse_time(header["date-obs"])) for header in headers
    ]
    per_component = np.array(scale)[:, np.newaxis] * (response.matrix.value @ em_per_bin(response.bins))
    counts = np.empty((len(CHANNELS), n, n), dtype=np.float32)
    for rows, amplitudes in _blocks(get_scene(seed), n, radius):
        counts[:, rows] = np.tensordot(per_component.astype(np.float32), amplitudes, axes=1)
    return counts


def _add_noise(image, channel, seed):
    """Add noise to the counts of one channel, in place."""
    rng = np.random.default_rng([seed, channel])
    n_sample = native_pixels(u.Quantity([_plate_scale(len(image))] * 2))
    step = max(1, _PIXELS_PER_BLOCK // len(image))
    for start in range(0, len(image), step):
        rows = image[start : start + step]
        rows += counts_uncertainty(rows, channel, n_sample=n_sample) * rng.standard_normal(rows.shape)


def _headers(n, obstime, observer, radius):
    """Headers of level 1.5 maps of the six channels."""
    shared = {
        "telescop": "SDO/AIA",
        "object": "Synthetic Sun",
        "img_type": "LIGHT",
        "lvl_num": 1.5,
        "quality": 0,
        "waveunit": "angstrom",
        "bunit": "DN",
        "crota2": 0.0,
        "dsun_obs": observer.radius.to_value("m"),
        "rsun_ref": _RSUN_REF.to_value("m"),
        "rsun_obs": radius.to_value("arcsec"),
        "hgln_obs": 0.0,
        "hglt_obs": observer.lat.to_value("deg"),
        "crln_obs": L0(obstime).to_value("deg"),
        "crlt_obs": observer.lat.to_value("deg"),
        "car_rot": int(carrington_rotation_number(obstime)),
        "history": "Synthetic: sunpy_deepem.sample.sample_maps, not an observation.",
    }
    for axis, name in (("1", "HPLN-TAN"), ("2", "HPLT-TAN")):
        cards = {"ctype": name, "cunit": "arcsec", "crval": 0.0, "cdelt": _plate_scale(n).value, "crpix": (n + 1) / 2}
        shared |= {key + axis: value for key, value in cards.items()}
    return [shared | _exposure(channel, obstime) for channel in CHANNELS]


def _exposure(channel, obstime):
    """Header cards of the exposure of one channel."""
    exposure, telescope, delay = _EXPOSURES[channel]
    start = obstime + TimeDelta(delay * u.s)
    return {
        "instrume": f"AIA_{telescope}",
        "camera": telescope,
        "date-obs": start.utc.isot,
        "t_obs": (start + TimeDelta(exposure / 2 * u.s)).utc.isot + "Z",
        "exptime": exposure,
        "wavelnth": channel,
        "wave_str": f"{channel}_THIN",
    }


def sample_cube(shape=(1024, 1024), *, seed=0, obstime=_OBSTIME):
    """
    Return a cube of the true emission measure of the synthetic Sun and the intensities of `sample_maps`.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels ``(ny, nx)``, equal along both axes.
    seed : `int`, optional
        See `sample_maps`.
    obstime : `~astropy.time.Time` or `str`, optional
        See `sample_maps`.

    Returns
    -------
    `DEMCube`
        The true EM, without uncertainty. ``intensity`` is that of the noisy maps; ``chi2`` measures their deviation
        from the truth.

    Examples
    --------
    >>> sample_cube((64, 64)).shape
    (18, 64, 64)
    """
    response = TemperatureResponse.default()
    stack = ChannelStack.from_maps(sample_maps(shape, seed=seed, obstime=obstime), shape=None)
    em, provenance = sample_em(shape, seed=seed, obstime=obstime).value, {"method": "truth of the synthetic Sun"}
    planes = Planes.from_fit(
        em, None, response, intensity=stack.intensity, uncertainty=stack.uncertainty, quality=stack.quality
    )
    return DEMCube.from_planes(planes, response, stack.header, inputs=stack.inputs, provenance=stack.meta | provenance)


def sample_regions(shape=(1024, 1024), *, obstime=_OBSTIME):
    """
    Return masks of the regions of the synthetic Sun, which are the same for all seeds.

    With at least 32 pixels a side, no region is empty.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels ``(ny, nx)``, equal along both axes.
    obstime : `~astropy.time.Time` or `str`, optional
        Time that determines the apparent size of the Sun.

    Returns
    -------
    `dict`
        Boolean masks of shape ``(ny, nx)``, `True` inside: ``"quiet Sun"``, ``"coronal hole"``, ``"active region"``
        (without the flare), ``"flare"`` and ``"off limb"`` (up to 1.3 solar radii). They do not overlap; the borders
        between regions belong to no mask.

    Raises
    ------
    TypeError
        If ``shape`` does not consist of integers.
    ValueError
        If ``shape`` is not two equal positive numbers.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_regions
    >>> list(sample_regions((64, 64)))
    ['quiet Sun', 'coronal hole', 'active region', 'flare', 'off limb']
    """
    n = _square_side(shape)
    axis = _axis(n, _observer(one_time(obstime, "obstime"))[1])
    x, y = np.broadcast_arrays(axis, axis[:, np.newaxis])
    radius = np.hypot(x, y)
    depth = hole_depth(*directions(x, y))
    # The pixel at the center of a region is in its mask at any resolution.
    least = 0.75 * 2 * np.abs(axis[0]) / max(1, n - 1)
    flare, hot, core = np.zeros((3, n, n), dtype=bool)
    far = np.ones((n, n), dtype=bool)
    for region in ACTIVE_REGIONS:
        distance = region.distance(x, y)
        core |= distance < max(0.6 * region.size, least)
        far &= distance > region.half
        if region.flare is not None:
            distance = np.hypot(x - region.flare_center[0], y - region.flare_center[1])
            flare |= distance < max(FLARE_RADIUS, least)
            # The fringe of the flare belongs to no mask.
            hot |= distance < max(2.5 * FLARE_RADIUS, least)
    return {
        "quiet Sun": (radius < 0.9) & far & (depth < -7),
        "coronal hole": (radius < 0.95) & far & (depth > 4),
        "active region": (radius < 0.98) & core & ~hot,
        "flare": flare,
        "off limb": (radius > 1.02) & (radius < 1.3),
    }


def _square_side(shape):
    """Return the side of a square shape, or raise."""
    problem = f"shape must be two equal whole numbers of pixels, at least 1, found {shape!r}. Example: (512, 512)."
    try:
        sides = [index(side) for side in shape]
    except TypeError:
        raise TypeError(problem) from None
    if len(sides) != 2 or min(sides) < 1 or sides[0] != sides[1]:
        raise ValueError(problem)
    return sides[0]


def _checked_seed(seed):
    try:
        seed = index(seed)
    except TypeError:
        msg = f"seed must be a whole number, found {seed!r}."
        raise TypeError(msg) from None
    if seed < 0:
        msg = f"seed must not be negative, found {seed}. Use any integer from 0."
        raise ValueError(msg)
    return seed


def _plate_scale(n):
    return _FIELD_OF_VIEW / (n * u.pix)


def _observer(obstime):
    """Position of the Earth at ``obstime``, which stands for SDO's, and the apparent radius of the Sun."""
    earth = get_earth(obstime)
    return earth, np.arcsin((_RSUN_REF / earth.radius).to_value("")).item() * u.rad


def _axis(n, radius):
    """Centers of ``n`` pixels across the field of view in solar radii; ``radius`` is the apparent solar radius."""
    half = (_FIELD_OF_VIEW / radius).to_value("") / 2
    return (np.arange(n) + 0.5) * (2 * half / n) - half


def _blocks(scene, n, radius):
    """Yield slices of rows and the amplitudes of the components in them, shape (components, rows, n)."""
    fine = -(-_LEAST_SAMPLES // n)
    axis = _axis(n * fine, radius)
    step = max(1, _PIXELS_PER_BLOCK // (n * fine * fine))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        amplitudes = scene.amplitudes(axis, axis[rows.start * fine : rows.stop * fine])
        yield rows, amplitudes.reshape(len(COMPONENTS), rows.stop - rows.start, fine, n, fine).mean(axis=(2, 4))
