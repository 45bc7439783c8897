"""The temperature response of the channels and the emissivity behind it."""

from sunpy_deepem.response.emissivity import Emissivity
from sunpy_deepem.response.temperature_response import TemperatureResponse

__all__ = ["Emissivity", "TemperatureResponse"]
