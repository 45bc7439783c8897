"""How much the prior determines the EM of a region: a mixin of `DEMCube`."""

from pathlib import Path

from astropy.table import QTable

from sunpy_deepem.temperature import BANDS

__all__ = ["PriorSensitivity"]


class PriorSensitivity:
    """Methods of `DEMCube` that infer the EM of a region under several priors."""

    def prior_curves(self, region=None, *, methods=("default", "neutral"), n=500, seed=0):
        """
        Return the mean EM curve of a region under several priors, from the same intensities.

        Parameters
        ----------
        region : optional
            As for `curve`.
        methods : sequence of `str`, `pathlib.Path`, `DeepEM` or `~sunpy_deepem.methods.Importance`, optional
            Methods with a posterior, or the weights of networks: packaged names or paths.
        n, seed
            As for `map_draws`.

        Returns
        -------
        `dict`
            The `~sunpy_deepem.analysis.EMCurve` of each method, by its name.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            As of `curve`, or if weights are not found.
        """
        curves = {}
        for method in methods:
            name = str(method) if isinstance(method, str | Path) else getattr(method, "source", None) or repr(method)
            curves[name] = self.curve(region, n=n, seed=seed, method=_loaded(method))
        return curves

    def prior_sensitivity(self, region=None, *, methods=("default", "neutral"), bands=BANDS, n=500, seed=0):
        """
        Return EM and temperature of a region under several priors, from the same intensities.

        Where the intervals differ, the prior determines the answer. ``plot_prior_sensitivity`` shows the curves.

        Parameters
        ----------
        region, methods, n, seed
            As for `prior_curves`.
        bands : sequence of pairs of `float`, optional
            Ranges of log10(T/K), as for `band_maps`.

        Returns
        -------
        `~astropy.table.QTable`
            A row for each method, with ``total_em``, the EM of each band, such as ``em_6.6_7.0``, ``log_t``, the
            EM-weighted log10(T/K), and ``width`` in dex; and the limits of their 68 % intervals, such as
            ``total_em_lower`` and ``total_em_upper``.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            As of `prior_curves`, or if a band is invalid.

        Examples
        --------
        >>> from sunpy_deepem.sample import sample_regions
        >>> dem = invert(sample_maps((64, 64)))
        >>> table = dem.prior_sensitivity(sample_regions((64, 64))["quiet Sun"])
        >>> bool(table["em_6.6_7.0"][1] > table["em_6.6_7.0"][0])
        True
        """
        rows = []
        for name, curve in self.prior_curves(region, methods=methods, n=n, seed=seed).items():
            row = {"method": name}
            for quantity, (value, lower, upper) in curve.products(bands).items():
                row |= {quantity: value, f"{quantity}_lower": lower, f"{quantity}_upper": upper}
            rows.append(row)
        return QTable(rows)


def _loaded(method):
    if not isinstance(method, str | Path):
        return method
    from sunpy_deepem.network.model import DeepEM  # torch is imported late

    return DeepEM.load(method)
