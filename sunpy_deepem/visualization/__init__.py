"""Figures of cubes and responses, and the interactive viewer."""

from sunpy_deepem.visualization.comparison import compare
from sunpy_deepem.visualization.figures import (
    plot_bins,
    plot_contraction,
    plot_prior_sensitivity,
    plot_profile,
    plot_response,
    plot_roundtrip,
    plot_temperature,
)
from sunpy_deepem.visualization.movies import animate, animate_series
from sunpy_deepem.visualization.overview import plot_bands, plot_summary

__all__ = [
    "animate",
    "animate_series",
    "compare",
    "plot_bands",
    "plot_bins",
    "plot_contraction",
    "plot_prior_sensitivity",
    "plot_profile",
    "plot_response",
    "plot_roundtrip",
    "plot_summary",
    "plot_temperature",
]
