"""Tests of writing and reading responses."""

import pytest

from sunpy_deepem import TemperatureResponse


def test_write_and_read_response(response, tmp_path):
    path = tmp_path / "response.ecsv"
    for written in (response, response.with_channels((335, 94))):
        written.write(path, overwrite=True)
        again = TemperatureResponse.read(path)
        assert again == written
        assert again.channels == written.channels
        assert again.meta == written.meta
    with pytest.raises(FileExistsError):
        response.write(path)
    path.write_text("not ecsv")
    with pytest.raises(ValueError, match="cannot be read as ECSV"):
        TemperatureResponse.read(path)
    with pytest.raises(FileNotFoundError):
        TemperatureResponse.read(tmp_path / "none.ecsv")
