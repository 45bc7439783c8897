"""The network: what it promises whatever its weights, and the files that hold them."""

import os
import pickle
import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sunpy_deepem import CHANNELS, DeepEM, LogTBins, TemperatureResponse
from sunpy_deepem.network import ChapterNetwork, ScaledNetwork

QUIET_SUN = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])


@pytest.fixture
def network(response):
    """A network with random weights, seeded."""
    torch.manual_seed(0)
    module = ScaledNetwork(response.matrix.value.sum(axis=1) * 1e25, 18, hidden=(16, 16))
    return DeepEM(module, bins=LogTBins(), response=response, meta={"seed": "0"})


@pytest.fixture(scope="module")
def default():
    return DeepEM.load("default")


def pixels(n, seed=0):
    """Intensities from coronal hole to flare, some negative, and their σ."""
    rng = np.random.default_rng(seed)
    intensity = QUIET_SUN[:, None] * 10 ** rng.uniform(-1.5, 2.5, (6, n))
    intensity[:, : n // 10] *= -0.1
    return intensity, 0.1 * np.abs(intensity) + 0.05


@pytest.mark.parametrize("factor", [2.0, 0.25, 1024.0])
def test_doubling_intensity_and_sigma_doubles_the_em(network, factor):
    intensity, sigma = pixels(50)
    em, std = network.predict(intensity, sigma)
    scaled_em, scaled_std = network.predict(factor * intensity, factor * sigma)
    # Powers of two only change exponents, so that the equality is exact.
    np.testing.assert_array_equal(scaled_em, factor * em)
    np.testing.assert_array_equal(scaled_std, factor * std)


def test_doubling_intensity_alone_does_not_merely_double_the_em(network):
    intensity, sigma = pixels(50)
    assert not np.allclose(network.predict(2 * intensity, sigma)[0], 2 * network.predict(intensity, sigma)[0])


def test_output_is_never_negative_and_never_zero_in_total(network):
    em, std = network.predict(*pixels(2000))
    assert em.min() >= 0
    assert std.min() >= 0
    assert em.sum(axis=0).min() > 0


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4), (0,)])
def test_any_trailing_shape(network, shape):
    intensity = np.broadcast_to(QUIET_SUN.reshape(6, *[1] * len(shape)), (6, *shape))
    em, std = network.predict(intensity, 0.1 * intensity)
    assert em.shape == std.shape == (18, *shape)
    assert em.dtype == np.float32


def test_pixels_do_not_see_each_other_nor_the_tiles(network):
    intensity, sigma = pixels(100)
    whole = network.predict(intensity, sigma)[0]
    np.testing.assert_allclose(network.predict(intensity, sigma, tile=7)[0], whole, rtol=1e-5)
    np.testing.assert_allclose(network.predict(intensity[:, 13], sigma[:, 13])[0], whole[:, 13], rtol=1e-5)


def test_the_order_of_channels_matters(network):
    intensity, sigma = pixels(20)
    order = [2, 0, 1, 3, 4, 5]
    assert not np.allclose(network.predict(intensity[order], sigma[order])[0], network.predict(intensity, sigma)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_misses_a_channel_is_nan_and_no_other(network, bad):
    intensity, sigma = pixels(10)
    clean = network.predict(intensity, sigma)[0]
    intensity[3, 4] = bad
    em, std = network.predict(intensity, sigma)
    assert np.isnan(em[:, 4]).all()
    assert np.isnan(std[:, 4]).all()
    np.testing.assert_allclose(np.delete(em, 4, axis=1), np.delete(clean, 4, axis=1), rtol=1e-5)


def test_the_input_is_left_as_it_was(network):
    intensity, sigma = (array.astype(np.float32) for array in pixels(10))
    intensity[0, 0] = np.nan
    before = intensity.copy()
    network.predict(intensity, sigma)
    np.testing.assert_array_equal(intensity, before)


@pytest.mark.parametrize(
    ("intensity", "sigma", "error", "message"),
    [
        (np.ones((5, 3)), np.ones((5, 3)), ValueError, "six channels"),
        (np.ones((6, 3)), np.ones((6, 4)), ValueError, "shape of intensity"),
        (np.ones((6, 3)), np.zeros((6, 3)), ValueError, "positive wherever"),
        (np.ones((6, 3)), -np.ones((6, 3)), ValueError, "positive wherever"),
        (np.ones((6, 3)), None, ValueError, "uncertainty is missing"),
        (np.ones((6, 3)) * u.DN, np.ones((6, 3)), TypeError, "plain array"),
        ("six", np.ones((6, 3)), TypeError, "array of real numbers"),
        (np.float32(1), np.float32(1), ValueError, "six channels"),
    ],
)
def test_bad_input(network, intensity, sigma, error, message):
    with pytest.raises(error, match=message):
        network.predict(intensity, sigma)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_unknown_device(network, device):
    with pytest.raises(ValueError, match="device must be 'auto'"):
        network.predict(*pixels(1), device=device)


def test_another_response_raises(network):
    network.check_response(TemperatureResponse.default())
    with pytest.raises(ValueError, match="not the one this network was trained for"):
        network.check_response(TemperatureResponse.default(chiantifix=False))
    nearly = TemperatureResponse.default()
    network.check_response(TemperatureResponse(nearly.temperature, 1.0001 * nearly.response))
    with pytest.raises(ValueError, match=r"differ by up to 1.0%"):
        network.check_response(TemperatureResponse(nearly.temperature, 1.01 * nearly.response))
    with pytest.raises(ValueError, match="folded onto"):
        network.check_response(TemperatureResponse.default(bins=LogTBins(5.6, 0.1, 17)))


def test_save_and_load(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    network.save(path)
    again = DeepEM.load(path)
    np.testing.assert_array_equal(again.predict(*pixels(5))[0], network.predict(*pixels(5))[0])
    assert again.bins == network.bins
    assert again.response_fingerprint == network.response_fingerprint
    assert again.meta == {"seed": "0"}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        network.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_default_weights_say_how_they_were_made(default, response):
    default.check_response(response)
    assert default.meta["training_command"].startswith("deepem train --prior")
    assert {"seed", "package_version", "history"} <= set(default.meta)


def test_default_weights_find_the_temperature_of_isothermal_plasma(default, response):
    for index in (4, 6, 8, 10, 13):
        truth = np.zeros(18)
        truth[index] = 1e27
        intensity = response.matrix.value @ truth
        em, _ = default.predict(intensity, 0.05 * intensity + 1e-3)
        assert np.average(response.bins.centers, weights=em) == pytest.approx(response.bins.centers[index], abs=0.1)
        assert em.sum() == pytest.approx(1e27, rel=0.25)


def broken(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    return path


def test_files_that_are_no_weights(network, tmp_path):
    good = tmp_path / "good.safetensors"
    network.save(good)
    for content in (b"", b"not weights", good.read_bytes()[:500], good.read_bytes()[:-100]):
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            DeepEM.load(broken(tmp_path, content))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, foreign)
    with pytest.raises(ValueError, match="holds no weights of this package"):
        DeepEM.load(foreign)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        DeepEM.load(tmp_path / "nothing.safetensors")


def test_weights_that_contradict_their_description(network, tmp_path):
    network.module.hidden = (17, 17)
    network.save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not fit their own description"):
        DeepEM.load(tmp_path / "w.safetensors")


# -- The chapter's own weights ---------------------------------------------------------------------------------------


def test_chapter_network_equals_plain_torch(tmp_path):
    torch.manual_seed(1)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(6, 300, 1),
        torch.nn.LeakyReLU(),
        torch.nn.Conv2d(300, 300, 1),
        torch.nn.LeakyReLU(),
        torch.nn.Conv2d(300, 18, 1),
    )
    torch.save(plain.state_dict(), tmp_path / "chapter.pth")
    check_against_plain(plain, DeepEM.from_helioml(tmp_path / "chapter.pth"))


def test_published_weights_equal_plain_torch(real_sun):
    path = real_sun.parents[1] / "reference" / "helioml" / "DeepEM_CNN_HelioML.pth"
    plain = ChapterNetwork().layers
    plain.load_state_dict(torch.load(path, weights_only=True))
    check_against_plain(plain, DeepEM.from_helioml(path))


def check_against_plain(plain, network):
    intensity = pixels(40)[0].reshape(6, 4, 10)
    with torch.no_grad():
        scaled = torch.as_tensor(np.sqrt(np.maximum(intensity, 0)), dtype=torch.float32)
        expected = 1e25 * plain(scaled[None])[0].numpy() ** 2
    em, std = network.predict(intensity)
    np.testing.assert_allclose(em, expected, rtol=1e-4)
    assert std is None


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pth_does_not_run(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"0.weight": Payload(trap)}, tmp_path / "hostile.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload(trap)))
    for name in ("hostile.pth", "old.pth"):
        with pytest.raises(ValueError, match="nothing else is read"):
            DeepEM.from_helioml(tmp_path / name)
    assert not trap.exists()
    # The trap is a real one.
    torch.load(tmp_path / "hostile.pth", weights_only=False)
    assert trap.exists()


def test_other_pth_files(tmp_path):
    torch.save({"0.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="6→300→300→18"):
        DeepEM.from_helioml(tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="6→300→300→18"):
        DeepEM.from_helioml(tmp_path / "tensor.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="nothing else is read"):
        DeepEM.from_helioml(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match="no file"):
        DeepEM.from_helioml(tmp_path / "nothing.pth")


def test_chapter_weights_are_saved_and_loaded_like_others(tmp_path):
    network = DeepEM(ChapterNetwork(hidden=(8, 8)), bins=LogTBins())
    network.save(tmp_path / "w.safetensors")
    again = DeepEM.load(tmp_path / "w.safetensors")
    assert again.response_fingerprint is None
    np.testing.assert_array_equal(again.predict(pixels(5)[0])[0], network.predict(pixels(5)[0])[0])


def test_the_package_does_not_import_torch():
    code = "import sys, sunpy_deepem as s; assert 'torch' not in sys.modules; s.DeepEM; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_repr(network):
    assert f"{2 * len(CHANNELS)}→16→16→36" in repr(network)


def test_reduced_precision_is_close(default):
    # Without the first tenth, which is negative in all channels.
    intensity, sigma = (torch.tensor(array[:, 20:], dtype=torch.float32)[None, :, None] for array in pixels(200))
    with torch.no_grad():
        full, _ = default.module(intensity, sigma)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced, _ = default.module(intensity, sigma)
    assert reduced.dtype == torch.float32
    difference = (reduced - full).abs() / full.sum(dim=1, keepdim=True)
    # bfloat16 has eight bits of precision.
    assert float(difference.median()) < 2**-8
    assert float(difference.max()) < 0.1
