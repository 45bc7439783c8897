"""Tests of cubes that are written with a relative precision."""

import dataclasses

import numpy as np
import pytest

from sunpy_deepem import DEMCube, invert
from sunpy_deepem.sample import sample_maps


@pytest.fixture(scope="module")
def dem():
    """A cube with a missing channel, a masked pixel, and an EM of zero."""
    cube = invert(sample_maps((64, 64)), shape=None)
    planes = cube.planes
    intensity = [image.copy() for image in planes.intensity]
    em, mask, sigma = planes.em.copy(), planes.mask.copy(), [image.copy() for image in planes.sigma]
    intensity[0][3, 4], sigma[0][3, 4] = np.nan, np.inf
    em[:, 5, 6], mask[:, 5, 6] = np.nan, True
    em[0, 7, 8] = 0
    return cube.with_planes(dataclasses.replace(planes, em=em, mask=mask, intensity=intensity, sigma=sigma))


@pytest.mark.parametrize("name", ["dem.fits", "dem.fits.gz", "dem.asdf"])
@pytest.mark.parametrize("precision", [0.1, 0.01, 1e-4])
def test_relative_error_is_bounded(dem, tmp_path, name, precision):
    dem.write(tmp_path / name, precision=precision)
    again = DEMCube.read(tmp_path / name)
    np.testing.assert_allclose(again.data, dem.data, rtol=precision, atol=0)
    np.testing.assert_allclose(again.uncertainty.array, dem.uncertainty.array, rtol=5 * precision, atol=0)
    np.testing.assert_allclose(again.intensity.value, dem.intensity.value, rtol=precision, atol=0)
    np.testing.assert_allclose(again.intensity_uncertainty, dem.intensity_uncertainty, rtol=5 * precision, atol=0)
    assert again.meta["provenance"]["precision"]["em"] == precision
    assert again.meta["provenance"]["precision"]["std"] == 5 * precision


def test_mask_flags_and_zero_are_exact(dem, tmp_path):
    dem.write(tmp_path / "dem.fits", precision=0.01)
    again = DEMCube.read(tmp_path / "dem.fits")
    np.testing.assert_array_equal(again.mask, dem.mask)
    np.testing.assert_array_equal(again.quality, dem.quality)
    np.testing.assert_array_equal(again.saturation, dem.saturation)
    assert again.data[0, 7, 8] == 0


def test_file_is_much_smaller(dem, tmp_path):
    sizes = {}
    for precision in (None, 1e-4, 0.01):
        path = tmp_path / f"{precision}.fits"
        dem.write(path, compress=True, precision=precision)
        sizes[precision] = path.stat().st_size
    assert sizes[0.01] < sizes[1e-4] < sizes[None]
    assert sizes[0.01] < 0.5 * sizes[None]


def test_cube_is_unchanged(dem, tmp_path):
    before = dem.data.copy()
    dem.write(tmp_path / "dem.fits", precision=0.01)
    np.testing.assert_array_equal(dem.data, before)
    assert "precision" not in dem.meta["provenance"]


@pytest.mark.parametrize(
    ("precision", "error"),
    [
        *[(value, ValueError) for value in (0, -0.01, 0.2, np.nan)],
        *[(value, TypeError) for value in ("1 %", True)],
    ],
)
def test_wrong_precision(dem, tmp_path, precision, error):
    with pytest.raises(error, match=r"precision must be a relative error such as 0.01"):
        dem.write(tmp_path / "dem.fits", precision=precision)
    assert not list(tmp_path.iterdir())
