"""The temperature response of the channels, and what it is computed from."""

from sunpy_deepem.response.emissivity import EMISSIVITY_UNIT, Emissivity
from sunpy_deepem.response.temperature_response import RESPONSE_UNIT, TemperatureResponse

__all__ = ["EMISSIVITY_UNIT", "RESPONSE_UNIT", "Emissivity", "TemperatureResponse"]
