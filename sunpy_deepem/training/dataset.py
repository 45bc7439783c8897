"""What a network learns from: `TrainingSet`, and `PriorStream`, which never repeats itself."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sunpy_deepem._files import atomic_path
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.training.prior import simulate_observation

__all__ = ["PriorStream", "TrainingSet"]

_FORMAT = "sunpy_deepem training set 1"


class TrainingSet:
    """
    Pixels with their intensities and the EM that a teacher, or the truth, says they have.

    Parameters
    ----------
    intensity, uncertainty : array-like
        DN s^-1 pix^-1, shape ``(6, n)``.
    em : array-like
        EM per bin in cm^-5, shape ``(number of bins, n)``.
    status : array-like of `int`, optional
        The teacher's status of each pixel, shape ``(n,)``; 0 is solved, which is the default.
    observation : array-like of `int`, optional
        Which observation each pixel is from, as an index into ``names``, shape ``(n,)``.
    names : sequence of `str`, optional
        Names of the observations.
    bins : `LogTBins`, optional
        Bins of ``em``.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """

    def __init__(self, intensity, uncertainty, em, *, status=None, observation=None, names=("",), bins=None):
        self.bins = LogTBins() if bins is None else bins
        self.intensity, self.uncertainty, self.em = (
            np.asarray(a, dtype=np.float32) for a in (intensity, uncertainty, em)
        )
        n = self.em.shape[-1]
        self.status = np.zeros(n, dtype=np.int16) if status is None else np.asarray(status, dtype=np.int16)
        self.observation = np.zeros(n, dtype=np.int32) if observation is None else np.asarray(observation, np.int32)
        self.names = tuple(str(name) for name in names)
        expected = {
            "intensity": (len(CHANNELS), n),
            "uncertainty": (len(CHANNELS), n),
            "em": (len(self.bins), n),
            "status": (n,),
            "observation": (n,),
        }
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                msg = f"{name} must have shape {shape} (channels {CHANNELS}, {self.bins!r}, n pixels), found {found}."
                raise ValueError(msg)
        if n and not 0 <= self.observation.min() <= self.observation.max() < len(self.names):
            msg = (
                f"observation must index names, from 0 to {len(self.names) - 1}, found up to {self.observation.max()}."
            )
            raise ValueError(msg)

    @classmethod
    def from_prior(cls, prior, response, n, *, seed, **noise):
        """
        Draw pixels from a prior, with the truth as EM.

        Parameters
        ----------
        prior : `DEMPrior`
        response : `TemperatureResponse`
        n : `int`
            How many pixels.
        seed : `int` or sequence of `int`
            The same seed gives the same pixels.
        **noise
            Passed to `~sunpy_deepem.training.prior.simulate_observation`.

        Returns
        -------
        `TrainingSet`
        """
        rng = np.random.default_rng(seed)
        em = prior.sample(n, seed=rng)
        intensity, uncertainty = simulate_observation(em, response, seed=rng, **noise)
        return cls(intensity, uncertainty, em, names=("prior",), bins=prior.bins)

    def __len__(self):
        return self.em.shape[1]

    def __repr__(self):
        solved = np.count_nonzero(self.status == 0)
        return (
            f"<TrainingSet of {len(self)} pixels ({solved} solved) from {len(self.names)} observations, {self.bins!r}>"
        )

    def epoch(self, number):
        """Return the pixels of an epoch: all, every time."""
        return self

    @property
    def identity(self):
        """What tells this set from another, as a `str`."""
        return f"set of {len(self)} pixels from {', '.join(self.names)}, total EM {self.em.sum(dtype=float):.6e}"

    def take(self, chosen):
        """
        Return the pixels that ``chosen`` (index or mask) selects.
        """
        return TrainingSet(
            self.intensity[:, chosen],
            self.uncertainty[:, chosen],
            self.em[:, chosen],
            status=self.status[chosen],
            observation=self.observation[chosen],
            names=self.names,
            bins=self.bins,
        )

    def solved(self):
        """
        Return the pixels whose status is 0 and whose EM is not zero throughout.
        """
        return self.take((self.status == 0) & (self.em > 0).any(axis=0))

    def usable(self, response):
        """
        Return the pixels from which something can be learned: all that are finite, with positive σ.

        Raises
        ------
        ValueError
            If the bins are not the response's, a solved pixel has an EM that is not finite, or no pixel is left.
        """
        if self.bins != response.bins:
            msg = f"The training set is on {self.bins!r}, the response on {response.bins!r}. Fold one onto the other's."
            raise ValueError(msg)
        bad_em = ~np.isfinite(self.em).all(axis=0)
        if (bad_em & (self.status == 0)).any():
            msg = (
                f"em is not finite in {np.count_nonzero(bad_em & (self.status == 0))} pixels of status 0. A teacher "
                "must give another status to pixels that it could not solve."
            )
            raise ValueError(msg)
        good = np.isfinite(self.intensity).all(axis=0) & np.isfinite(self.uncertainty).all(axis=0) & ~bad_em
        good &= (self.uncertainty > 0).all(axis=0) & (self.em > 0).any(axis=0)
        if not good.any():
            msg = (
                f"No pixel of {len(self)} is left to learn from: they lack finite intensity, positive σ or an EM above "
                "zero. Look at the teacher's status."
            )
            raise ValueError(msg)
        return self if good.all() else self.take(good)

    def split(self, *groups):
        """
        Return one set for each group of observations, so that no observation is in two.

        Parameters
        ----------
        *groups : sequence of `str`
            Names of observations.

        Raises
        ------
        ValueError
            If a name is unknown or in two groups.
        """
        flat = [name for group in groups for name in group]
        if unknown := sorted(set(flat) - set(self.names)):
            msg = f"There are no observations {unknown}; known are {list(self.names)}."
            raise ValueError(msg)
        if len(set(flat)) != len(flat):
            msg = f"An observation may be in one group only, found {flat}."
            raise ValueError(msg)
        return tuple(
            self.take(np.isin(self.observation, [self.names.index(name) for name in group])) for group in groups
        )

    def save(self, path, *, overwrite=False):
        """
        Write the set to a safetensors file, atomically.

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is `False`.
        """
        names = ("intensity", "uncertainty", "em", "status", "observation")
        bins = {"first": self.bins.first, "step": self.bins.step, "n": self.bins.n}
        meta = {"format": _FORMAT, "names": json.dumps(self.names), "bins": json.dumps(bins)}
        content = save({name: np.ascontiguousarray(getattr(self, name)) for name in names}, metadata=meta)
        with atomic_path(path, overwrite=overwrite) as partial:
            partial.write_bytes(content)

    @classmethod
    def load(cls, path):
        """
        Read a set that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is truncated or of another kind.
        """
        path = Path(path)
        if not path.is_file():
            msg = f"There is no training set at {path}."
            raise FileNotFoundError(msg)
        try:
            with safe_open(path, framework="np") as file:
                meta = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            msg = f"{path} is not a readable training set ({error}). It may be truncated or of another kind."
            raise ValueError(msg) from None
        if meta.get("format") != _FORMAT:
            msg = f"{path} holds no training set: its metadata lacks format={_FORMAT!r}."
            raise ValueError(msg)
        return cls(**arrays, names=json.loads(meta["names"]), bins=LogTBins(**json.loads(meta["bins"])))


class PriorStream:
    """
    An endless training set: every epoch draws new pixels from a prior.

    Parameters
    ----------
    prior : `DEMPrior`
    response : `TemperatureResponse`
    n : `int`
        Pixels in an epoch.
    seed : `int`
        The same seed gives the same pixels in the same epoch.
    """

    def __init__(self, prior, response, n, *, seed=0):
        self.prior, self.response, self.n, self.seed = prior, response, int(n), int(seed)

    def epoch(self, number):
        """Return the pixels of epoch ``number``, a `TrainingSet`."""
        return TrainingSet.from_prior(self.prior, self.response, self.n, seed=[self.seed, number])

    @property
    def identity(self):
        """What tells this stream from another, as a `str`."""
        weights = dict(zip(self.prior.families, self.prior.weights.round(6).tolist(), strict=True))
        return f"prior {weights}, {self.n} pixels an epoch, seed {self.seed}"
