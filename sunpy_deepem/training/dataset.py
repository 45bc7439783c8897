"""Pixels to learn from: `TrainingSet`, and `PriorStream`, which draws new pixels in each epoch."""

import json

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.methods.base import get_method
from sunpy_deepem.methods.factors import checked_factors
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.training.observing import generator, simulate_observation, usual_uncertainty
from sunpy_deepem.utils.checks import plain_array, whole_number
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["PriorStream", "TrainingSet"]

_FORMAT = "sunpy_deepem training set 1"
# The chapter's pixels are 4.8 arcsec wide, AIA's native ones 0.6 arcsec.
_CHAPTER_NATIVE_PIXELS = 64
# Fraction of the pixels of a stream with exposures as short as in flares.
_SHORT_EXPOSURES = 0.2


class TrainingSet:
    """
    Pixels with their intensities and their EM, true or inverted by a teacher.

    Parameters
    ----------
    intensity, uncertainty : array-like
        DN s^-1 pix^-1, shape ``(channels, n)``.
    em : array-like
        EM per bin in cm^-5, shape ``(number of bins, n)``.
    status : array-like of `int`, optional
        Status of each pixel, shape ``(n,)``; 0, the default, is solved.
    observation : array-like of `int`, optional
        Observation of each pixel, as an index into ``names``, shape ``(n,)``.
    names : sequence of `str`, optional
        Names of the observations.
    bins : `LogTBins`, optional
        Bins of ``em``.
    channels : sequence, optional
        Names of the channels, by default AIA's, `sunpy_deepem.CHANNELS`.

    Raises
    ------
    TypeError
        If an array carries a unit or does not hold real numbers.
    ValueError
        If shapes do not fit.
    """

    def __init__(
        self, intensity, uncertainty, em, *, status=None, observation=None, names=("",), bins=None, channels=CHANNELS
    ):
        self.bins = LogTBins() if bins is None else bins
        self.channels = tuple(channels)
        em = plain_array(em, "em", unit="cm-5")
        # Overflow in single precision gives infinity; `usable` drops such pixels.
        with np.errstate(over="ignore"):
            self.intensity, self.uncertainty, self.em = (
                array.astype(np.float32, copy=False)
                for array in (plain_array(intensity, "intensity"), plain_array(uncertainty, "uncertainty"), em)
            )
        n = self.em.shape[-1] if self.em.ndim else 0
        self.status = np.zeros(n, dtype=np.int16) if status is None else _integers(status, "status", np.int16)
        self.observation = (
            np.zeros(n, dtype=np.int32) if observation is None else _integers(observation, "observation", np.int32)
        )
        self.names = tuple(str(name) for name in names)
        expected = {
            "intensity": (len(self.channels), n),
            "uncertainty": (len(self.channels), n),
            "em": (len(self.bins), n),
            "status": (n,),
            "observation": (n,),
        }
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                msg = (
                    f"{name} must have shape {shape} (channels {self.channels}, {self.bins!r}, n pixels), found "
                    f"{found}."
                )
                raise ValueError(msg)
        if n and not 0 <= self.observation.min() <= self.observation.max() < len(self.names):
            msg = (
                f"observation must index names, from 0 to {len(self.names) - 1}, found {self.observation.min()} to "
                f"{self.observation.max()}."
            )
            raise ValueError(msg)

    @classmethod
    def from_prior(cls, prior, response, n, *, seed, **noise):
        """
        Draw pixels with their true EM from a prior.

        Parameters
        ----------
        prior : `DEMPrior`
        response : `TemperatureResponse`
        n : `int`
            Number of pixels.
        seed : `int` or sequence of `int`
            The same seed gives the same pixels.
        **noise
            Passed to `~sunpy_deepem.training.simulate_observation`.

        Returns
        -------
        `TrainingSet`
        """
        rng = generator(seed)
        em = prior.sample(n, seed=rng, trace=True)
        intensity, uncertainty = simulate_observation(em, response, seed=rng, **noise)
        return cls(intensity, uncertainty, em, names=("prior",), bins=prior.bins, channels=response.channels)

    @classmethod
    def from_maps(cls, observations, teacher, response, **stack_options):
        """
        Build a set from real or synthetic maps and a teacher.

        Parameters
        ----------
        observations : iterable
            Each a `ChannelStack`, or six maps as `ChannelStack.from_maps` takes them. Their names are their times.
        teacher : `Teacher`, `str` or callable
            As in `taught_by`.
        response : `TemperatureResponse`
        **stack_options
            Passed to `ChannelStack.from_maps`.

        Returns
        -------
        `TrainingSet`
            All pixels of all observations. The intensities of pixels without all channels, such as saturated ones, are
            NaN; teachers give them the status invalid.

        Raises
        ------
        ValueError
            If there is no observation.
        """
        stacks = [
            s if isinstance(s, ChannelStack) else ChannelStack.from_maps(s, **stack_options) for s in observations
        ]
        if not stacks:
            msg = "observations is empty; give at least one set of six maps."
            raise ValueError(msg)
        intensity = [
            np.where(s.usable.all(axis=0) & ~s.mask, s.intensity.value, np.float32(np.nan)).reshape(len(CHANNELS), -1)
            for s in stacks
        ]
        sizes = [array.shape[1] for array in intensity]
        pixels = cls(
            np.concatenate(intensity, axis=1),
            np.concatenate([s.uncertainty.value.reshape(len(CHANNELS), -1) for s in stacks], axis=1),
            np.zeros((len(response.bins), sum(sizes)), dtype=np.float32),
            observation=np.repeat(np.arange(len(stacks)), sizes),
            names=_unique([stack.header["date-obs"] for stack in stacks]),
            bins=response.bins,
        )
        return pixels.taught_by(teacher, response)

    @classmethod
    def from_chapter(cls, folder, *, systematic=0.1):
        """
        Read the files of the DeepEM chapter.

        Each observation is three files: ``NAME.aia.npy`` (6 × N × N, DN s^-1 pix^-1), ``NAME.emcube.npy`` (18 × N × N,
        cm^-5) and ``NAME.status.npy`` (N × N). σ is estimated for binned 4.8 arcsec pixels and usual exposure times.

        Parameters
        ----------
        folder : `str` or `pathlib.Path`
        systematic : `float`, optional
            Systematic error as a fraction of the intensity.

        Returns
        -------
        `TrainingSet`

        Raises
        ------
        FileNotFoundError
            If there is no ``*.aia.npy``, or one of the other two files is missing.
        ValueError
            If a file does not hold an array, or shapes do not fit.
        """
        folder = checked_path(folder, "folder")
        names = sorted(path.name.removesuffix(".aia.npy") for path in folder.glob("*.aia.npy"))
        if not names:
            msg = f"folder {folder} holds no file NAME.aia.npy of the chapter."
            raise FileNotFoundError(msg)
        observations = [_read_chapter(folder, name) for name in names]
        intensity, em, status = (np.concatenate(arrays, axis=-1) for arrays in zip(*observations, strict=True))
        sizes = [observation[2].size for observation in observations]
        return cls(
            intensity,
            usual_uncertainty(intensity, systematic=systematic, n_sample=_CHAPTER_NATIVE_PIXELS),
            em,
            status=status,
            observation=np.repeat(np.arange(len(names)), sizes),
            names=names,
        )

    def __len__(self):
        return self.em.shape[1]

    def __repr__(self):
        solved = np.count_nonzero(self.status == 0)
        return (
            f"<TrainingSet of {len(self)} pixels ({solved} solved) from {len(self.names)} observations, {self.bins!r}>"
        )

    def epoch(self, number):
        """Return the pixels of an epoch: all of them."""
        return self

    @property
    def identity(self):
        """A `str` that distinguishes this set from others."""
        return f"set of {len(self)} pixels from {', '.join(self.names)}, total EM {self.em.sum(dtype=float):.6e}"

    def _with_em(self, em, status):
        return TrainingSet(
            self.intensity,
            self.uncertainty,
            em,
            status=status,
            observation=self.observation,
            names=self.names,
            bins=self.bins,
            channels=self.channels,
        )

    def taught_by(self, teacher, response):
        """
        Return the same pixels with the EM that ``teacher`` finds.

        Parameters
        ----------
        teacher : `Teacher`, `str` or callable
            As for `sunpy_deepem.methods.get_method`: a name, a method, or a function
            ``(intensity, uncertainty, response) -> (em, status)``.
        response : `TemperatureResponse`

        Returns
        -------
        `TrainingSet`
        """
        solution = get_method(teacher).solve(self.intensity, self.uncertainty, response)
        return self._with_em(solution.em, solution.status)

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
            channels=self.channels,
        )

    def usable(self, response, *, keep_unsolved=False):
        """
        Return the pixels that a network can be trained on.

        Parameters
        ----------
        response : `TemperatureResponse`
            Its channels and bins must be those of the set.
        keep_unsolved : `bool`, optional
            Also keep pixels without a solution or without EM; an EM that is not finite becomes zero.

        Returns
        -------
        `TrainingSet`
            All pixels with finite intensity, positive σ and, unless ``keep_unsolved``, status 0 and an EM above zero.

        Raises
        ------
        ValueError
            If channels or bins are not the response's, a solved pixel has an EM that is not finite, or no pixel is
            left.
        """
        if self.bins != response.bins:
            msg = f"The training set is on {self.bins!r}, the response on {response.bins!r}. Fold one onto the other's."
            raise ValueError(msg)
        if self.channels != response.channels:
            msg = f"The training set has the channels {self.channels}, the response {response.channels}."
            raise ValueError(msg)
        bad_em = ~np.isfinite(self.em).all(axis=0)
        if (bad_em & (self.status == 0)).any():
            msg = (
                f"em is not finite in {np.count_nonzero(bad_em & (self.status == 0))} pixels of status 0. A teacher "
                "must give another status to pixels that it could not solve."
            )
            raise ValueError(msg)
        good = (np.isfinite(self.intensity) & np.isfinite(self.uncertainty) & (self.uncertainty > 0)).all(axis=0)
        if not keep_unsolved:
            good &= (self.status == 0) & (self.em > 0).any(axis=0)
        if not good.any():
            msg = (
                f"No pixel of {len(self)} is left to learn from: they lack finite intensity, positive σ, status 0 or "
                "an EM above zero. Look at the teacher's status."
            )
            raise ValueError(msg)
        chosen = self if good.all() else self.take(good)
        return chosen.filled() if bad_em.any() else chosen

    def filled(self):
        """
        Return the set with zero where the EM is not finite, as in the chapter's data.
        """
        em = np.where(np.isfinite(self.em).all(axis=0), self.em, 0)
        return self._with_em(em, self.status)

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
        return tuple(self._of(tuple(group)) for group in groups)

    def _of(self, names):
        """Return the pixels of the observations ``names``."""
        position = np.full(len(self.names), -1)
        position[[self.names.index(name) for name in names]] = np.arange(len(names))
        found = position[self.observation]
        part = self.take(found >= 0)
        part.observation, part.names = found[found >= 0].astype(np.int32), names
        return part

    def save(self, path, *, overwrite=False):
        """
        Write the set to a safetensors file, atomically.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is `False`.
        """
        names = ("intensity", "uncertainty", "em", "status", "observation")
        bins = {"first": self.bins.first, "step": self.bins.step, "n": self.bins.n}
        meta = {"format": _FORMAT, "names": json.dumps(self.names), "bins": json.dumps(bins)}
        if self.channels != CHANNELS:
            meta["channels"] = json.dumps(self.channels)
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
        path = checked_path(path)
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
            msg = f"{path} holds no training set: format must be {_FORMAT!r}, found {meta.get('format')!r}."
            raise ValueError(msg)
        try:
            channels = json.loads(meta.get("channels", json.dumps(CHANNELS)))
            bins = LogTBins(**json.loads(meta["bins"]))
            return cls(**arrays, names=json.loads(meta["names"]), bins=bins, channels=channels)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} holds a training set that does not fit its own description ({error}). Make it again."
            raise ValueError(msg) from error


class PriorStream:
    """
    An endless training set that draws new pixels from a prior in each epoch.

    Parameters
    ----------
    prior : `DEMPrior`
    response : `TemperatureResponse`
    n : `int`
        Pixels per epoch.
    seed : `int`
        The same seed gives the same pixels in the same epoch.
    systematic : pair of `float`, optional
        Limits of the systematic fraction, as for `simulate_observation`.
    factors : `dict`, optional
        Widths of unknown factors of the channels' responses, as for `simulate_observation`.
    """

    def __init__(self, prior, response, n, *, seed=0, systematic=(0.0, 0.3), factors=None):
        self.prior, self.response = prior, response
        self.n, self.seed = whole_number(n, "n"), whole_number(seed, "seed", least=0)
        self.systematic = tuple(float(limit) for limit in systematic)
        self.factors = checked_factors(factors)

    def epoch(self, number):
        """Return the pixels of epoch ``number``, a `TrainingSet`."""
        noise = {"systematic": self.systematic, "short_exposures": _SHORT_EXPOSURES, "factors": self.factors}
        return TrainingSet.from_prior(self.prior, self.response, self.n, seed=[self.seed, number], **noise)

    @property
    def identity(self):
        """A `str` that distinguishes this stream from others."""
        weights = dict(zip(self.prior.families, self.prior.weights.round(6).tolist(), strict=True))
        factors = f"factors {self.factors}, " if self.factors else ""
        return f"prior {weights}, systematic {self.systematic}, {factors}{self.n} pixels an epoch, seed {self.seed}"


def _integers(values, name, dtype):
    array = plain_array(values, name, unit="whole numbers")
    if not (np.isfinite(array) & (array == np.rint(array))).all():
        msg = f"{name} must hold whole numbers, one per pixel, found other values."
        raise ValueError(msg)
    return array.astype(dtype, copy=False)


def _unique(names):
    """Number the observations of the same time."""
    return [name if names.count(name) == 1 else f"{name} #{index}" for index, name in enumerate(names)]


def _read_chapter(folder, name):
    """Return intensity (6, n), EM (18, n) and status (n,) of one of the chapter's observations."""
    arrays = []
    for kind in ("aia", "emcube", "status"):
        path = folder / f"{name}.{kind}.npy"
        if not path.is_file():
            msg = f"{path} is missing; an observation is NAME.aia.npy, NAME.emcube.npy and NAME.status.npy."
            raise FileNotFoundError(msg)
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            msg = f"{path} cannot be read as an array ({error})."
            raise ValueError(msg) from None
    sky = arrays[2].shape
    expected = ((len(CHANNELS), *sky), (len(LogTBins()), *sky), sky)
    if tuple(array.shape for array in arrays) != expected:
        msg = f"{name} must be of shapes (6, N, N), (18, N, N) and (N, N), found {[array.shape for array in arrays]}."
        raise ValueError(msg)
    return [array.reshape(*array.shape[: array.ndim - 2], -1) for array in arrays]
