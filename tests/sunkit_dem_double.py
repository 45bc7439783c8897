"""
A double of sunkit-dem for tests where it is not installed, which is the rule, as it is not on PyPI.

It behaves as sunkit_dem.GenericModel and sunkit_dem.Model do as far as a model can tell: keys are sorted as text, all
matrices are in that order, and models are found through a registry of subclasses. Written from a description of what
those do, with none of their code; of their checks it has none.
"""

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from ndcube import NDCollection, NDCube
from ndcube.extra_coords.table_coord import MultipleTableCoordinate, QuantityTableCoordinate
from ndcube.wcs.wrappers import CompoundLowLevelWCS


class GenericModel:
    _registry = {}  # noqa: RUF012 - as the original has it

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        GenericModel._registry[cls] = cls.defines_model_for

    def __init__(self, data, kernel, temperature_bin_edges, kernel_temperatures=None, **kwargs):
        self.data, self.kernel, self.temperature_bin_edges = data, kernel, temperature_bin_edges
        self.kernel_temperatures = self.temperature_bin_centers if kernel_temperatures is None else kernel_temperatures

    @property
    def temperature_bin_centers(self):
        return u.Quantity([self.temperature_bin_edges[:-1], self.temperature_bin_edges[1:]]).mean(axis=0)

    @property
    def _keys(self):
        return sorted(self.kernel)

    @property
    def data_matrix(self):
        return np.array([self.data[key].data for key in self._keys])

    @property
    def uncertainty_matrix(self):
        return np.array([self.data[key].uncertainty.array for key in self._keys])

    def fit(self, *args, **kwargs):
        results = self._model(*args, **kwargs)
        dem, std = results.pop("dem"), results.pop("uncertainty", None)
        first = self.data[self._keys[0]]
        table = MultipleTableCoordinate(
            QuantityTableCoordinate(
                self.temperature_bin_centers, names="temperature", physical_types="phys.temperature"
            )
        )
        n = first.wcs.pixel_n_dim
        wcs = CompoundLowLevelWCS(first.wcs, table.wcs, mapping=[*range(n), n])
        masks = [np.zeros(first.data.shape, bool) if cube.mask is None else cube.mask for cube in self.data.values()]
        mask = np.broadcast_to(np.any(masks, axis=0), dem.shape)
        meta = self._make_dem_meta()
        std = None if std is None else StdDevUncertainty(std)
        cubes = [("dem", NDCube(dem, wcs, meta=meta, mask=mask, uncertainty=std))]
        return NDCollection(cubes + [(key, NDCube(value, wcs, meta=meta)) for key, value in results.items()])


def Model(*args, **kwargs):
    (found,) = (model for model, defines in GenericModel._registry.items() if defines(*args, **kwargs))
    return found(*args, **kwargs)
