"""The network with any weights, and weights files."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import astropy.units as u
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sunpy_deepem import CHANNELS, DeepEM, LogTBins, TemperatureResponse
from sunpy_deepem.network.architectures import ChapterNetwork, ScaledNetwork
from sunpy_deepem.training import DEMPrior, simulate_observation

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
    """Return intensities from coronal hole to flare, some negative, and their σ."""
    rng = np.random.default_rng(seed)
    intensity = QUIET_SUN[:, None] * 10 ** rng.uniform(-1.5, 2.5, (6, n))
    intensity[:, : n // 10] *= -0.1
    return intensity, 0.1 * np.abs(intensity) + 0.05


def solar_pixels(n):
    """Return intensities of plasma drawn from the prior, and their σ."""
    response = TemperatureResponse.default()
    return simulate_observation(DEMPrior().sample(n, seed=4), response, seed=5, systematic=0.1, n_sample=64)


@pytest.mark.parametrize("factor", [2.0, 0.25, 16.0])
def test_em_is_proportional_to_brightness_beyond_the_training_range(network, factor):
    intensity, sigma = pixels(50)
    scale = 2.0**24 if factor > 1 else 2.0**-30
    em, std = network.predict(scale * intensity, scale * sigma)
    scaled_em, scaled_std = network.predict(factor * scale * intensity, factor * scale * sigma)
    # Powers of two only change exponents, so the equality is exact.
    np.testing.assert_array_equal(scaled_em, factor * em)
    np.testing.assert_array_equal(scaled_std, factor * std)


def test_doubling_intensity_and_sigma_nearly_doubles_the_em(default):
    """Brightness has a small effect on the shape, where the channels do not determine it."""
    intensity, sigma = solar_pixels(500)
    one, two = (default.predict(k * intensity, k * sigma)[0].astype(float) for k in (1, 2))
    assert np.median(np.abs(two.sum(axis=0) / one.sum(axis=0) / 2 - 1)) < 0.01
    shapes = [found / found.sum(axis=0) for found in (one, two)]
    assert np.median(np.abs(shapes[1] - shapes[0]).sum(axis=0)) < 0.05


def test_doubling_intensity_alone_changes_the_shape(network):
    intensity, sigma = pixels(50)
    assert not np.allclose(network.predict(2 * intensity, sigma)[0], 2 * network.predict(intensity, sigma)[0])


def test_em_is_not_negative_and_its_total_positive(network):
    em, std = network.predict(*pixels(2000))
    assert em.min() >= 0
    assert std.min() >= 0
    assert em.sum(axis=0).min() > 0


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4), (0,)])
def test_trailing_shape(network, shape):
    intensity = np.broadcast_to(QUIET_SUN.reshape(6, *[1] * len(shape)), (6, *shape))
    em, std = network.predict(intensity, 0.1 * intensity)
    assert em.shape == std.shape == (18, *shape)
    assert em.dtype == np.float32


def test_pixels_and_tiles_are_independent(network):
    intensity, sigma = pixels(100)
    whole = network.predict(intensity, sigma)[0]
    np.testing.assert_allclose(network.predict(intensity, sigma, tile=7)[0], whole, rtol=1e-5)
    np.testing.assert_allclose(network.predict(intensity[:, 13], sigma[:, 13])[0], whole[:, 13], rtol=1e-5)


def test_order_of_channels_matters(network):
    intensity, sigma = pixels(20)
    order = [2, 0, 1, 3, 4, 5]
    assert not np.allclose(network.predict(intensity[order], sigma[order])[0], network.predict(intensity, sigma)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_channels_are_left_out_of_their_pixel(network, bad):
    intensity, sigma = pixels(10)
    clean = network.predict(intensity, sigma)[0]
    intensity[3, 4] = bad
    intensity[:4, 5] = bad
    em, std = network.predict(intensity, sigma)
    assert np.isfinite(em[:, 4]).all()
    assert (em[:, 4] != clean[:, 4]).any()
    # Two channels are too few.
    assert np.isnan(em[:, 5]).all()
    assert np.isnan(std[:, 5]).all()
    others = [0, 1, 2, 3, 6, 7, 8, 9]
    np.testing.assert_allclose(em[:, others], clean[:, others], rtol=1e-5)
    # An infinite σ means the same.
    whole = pixels(10)[0]
    sigma[3, 4] = np.inf
    np.testing.assert_allclose(network.predict(whole, sigma)[0][:, 4], em[:, 4], rtol=1e-5)


def test_input_is_unchanged(network):
    intensity, sigma = (array.astype(np.float32) for array in pixels(10))
    intensity[0, 0] = np.nan
    before = intensity.copy()
    network.predict(intensity, sigma)
    np.testing.assert_array_equal(intensity, before)


@pytest.mark.parametrize(
    ("intensity", "sigma", "error", "message"),
    [
        (np.ones((5, 3)), np.ones((5, 3)), ValueError, "the 6 channels"),
        (np.ones((6, 3)), np.ones((6, 4)), ValueError, "shape of intensity"),
        (np.ones((6, 3)), np.zeros((6, 3)), ValueError, "positive wherever"),
        (np.ones((6, 3)), -np.ones((6, 3)), ValueError, "positive wherever"),
        (np.ones((6, 3)), None, ValueError, "uncertainty is missing"),
        (np.ones((6, 3)) * u.DN, np.ones((6, 3)), TypeError, "plain array"),
        ("six", np.ones((6, 3)), TypeError, "array of real numbers"),
        (np.float32(1), np.float32(1), ValueError, "the 6 channels"),
    ],
)
def test_bad_input(network, intensity, sigma, error, message):
    with pytest.raises(error, match=message):
        network.predict(intensity, sigma)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_unknown_device(network, device):
    with pytest.raises(ValueError, match="device must be 'auto'"):
        network.predict(*pixels(1), device=device)


def test_check_response(network):
    network.check_response(TemperatureResponse.default())
    with pytest.raises(ValueError, match="not the one this network was trained for"):
        network.check_response(TemperatureResponse.default(chiantifix=False))
    nearly = TemperatureResponse.default()
    network.check_response(TemperatureResponse(nearly.temperature, 1.0001 * nearly.curves))
    with pytest.raises(ValueError, match=r"differ by up to 1.0%"):
        network.check_response(TemperatureResponse(nearly.temperature, 1.01 * nearly.curves))
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


def test_default_weights_have_provenance(default, response):
    default.check_response(response)
    assert default.meta["training_command"].startswith("deepem train --prior")
    assert {"seed", "package_version", "history"} <= set(default.meta)


def test_default_weights_on_isothermal_plasma(default, response):
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


def test_invalid_weights_files(network, tmp_path):
    good = tmp_path / "good.safetensors"
    network.save(good)
    for content in (b"", b"not weights", good.read_bytes()[:500], good.read_bytes()[:-100]):
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            DeepEM.load(broken(tmp_path, content))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, foreign)
    with pytest.raises(ValueError, match="holds no weights that this version of the package reads"):
        DeepEM.load(foreign)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        DeepEM.load(tmp_path / "nothing.safetensors")


def test_weights_that_contradict_their_architecture(network, tmp_path):
    network.module.hidden = (17, 17)
    network.save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not fit their own description"):
        DeepEM.load(tmp_path / "w.safetensors")


# -- Weights of the chapter ------------------------------------------------------------------------------------------


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
    # The square has few significant digits where the output passes through zero.
    np.testing.assert_allclose(em, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert std is None


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pth_does_not_run(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"0.weight": Payload(trap)}, tmp_path / "hostile.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload(trap)))
    for name in ("hostile.pth", "old.pth"):
        with pytest.raises(ValueError, match="nothing else is read"):
            DeepEM.from_helioml(tmp_path / name)
    assert not trap.exists()
    # Check that the file is hostile.
    torch.load(tmp_path / "hostile.pth", weights_only=False)
    assert trap.exists()


def test_invalid_pth_files(tmp_path):
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


def test_save_and_load_chapter_weights(tmp_path):
    network = DeepEM(ChapterNetwork(hidden=(8, 8)), bins=LogTBins())
    network.save(tmp_path / "w.safetensors")
    again = DeepEM.load(tmp_path / "w.safetensors")
    assert again.response_fingerprint is None
    np.testing.assert_array_equal(again.predict(pixels(5)[0])[0], network.predict(pixels(5)[0])[0])


def test_the_package_does_not_import_torch():
    code = "import sys, sunpy_deepem as s; assert 'torch' not in sys.modules; s.DeepEM; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_repr(network):
    assert f"{4 * len(CHANNELS) + 1}→16→16→36" in repr(network)


# -- Fast code, same answers -----------------------------------------------------------------------------------------


def plain_forward(network, intensity, sigma):
    """Return the answer of PyTorch's own convolutions in double precision."""
    module = network.module.double()
    try:
        tensors = (torch.tensor(array, dtype=torch.float32).double()[None, :, None] for array in (intensity, sigma))
        em, spread = (array[0, :, 0].detach().numpy() * 1e25 for array in module(*tensors))
    finally:
        module.float()
    return em, spread


def test_predict_equals_the_plain_network(default):
    intensity, sigma = solar_pixels(3000)
    expected_em, expected_std = plain_forward(default, intensity, sigma)
    em, std = default.predict(intensity, sigma, precision="float32")
    # Relative to the total of a pixel, since bins may be nearly empty.
    total = expected_em.sum(axis=0)
    assert np.abs((em - expected_em) / total).max() < 1e-5
    assert np.abs((std - expected_std) / total).max() < 1e-5


def test_onednn_layers_equal_pytorch(default, monkeypatch):
    intensity, sigma = pixels(500)
    em, std = default.predict(intensity, sigma, precision="float32")
    monkeypatch.setattr("sunpy_deepem.network.layers._has_onednn_layers", lambda *_: False)
    plain_em, plain_std = default.predict(intensity, sigma, precision="float32")
    np.testing.assert_allclose(em, plain_em, rtol=1e-5, atol=1e-6 * plain_em.max())
    np.testing.assert_allclose(std, plain_std, rtol=1e-5, atol=1e-6 * plain_em.max())


@pytest.mark.parametrize("shape", [(1, 13, 1, 1), (3, 13, 4, 5), (0, 13, 1, 1), (2, 13, 0, 3)])
def test_layers_take_batches(default, shape):
    layers = default.module.layers
    values = torch.rand(shape)
    with torch.no_grad():
        quick, part = layers(values), layers(values, 18)
    assert quick.shape == (shape[0], 36, *shape[2:])
    torch.testing.assert_close(quick, layers(values).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part, quick[:, :18], rtol=1e-5, atol=1e-5)


def test_layers_pass_gradients(default):
    values = torch.rand(1, 13, 1, 7, requires_grad=True)
    default.module.layers(values).sum().backward()
    assert (values.grad != 0).all()


def test_runs_on_any_device(network):
    # "meta" computes shapes only; code that runs there needs no data on the CPU.
    module = ScaledNetwork(np.ones(6), 18, hidden=(16, 16)).to("meta")
    with torch.inference_mode():
        em, spread = module(*(torch.empty(1, 6, 2, 3, device="meta") for _ in range(2)))
    assert em.shape == spread.shape == (1, 18, 2, 3)
    assert em.device.type == spread.device.type == "meta"


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("tile", [50, 128, 10**6])
def test_threads_and_tiles_change_nothing(network, threads, tile):
    intensity, sigma = pixels(500)
    expected = network.predict(intensity, sigma)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = network.predict(intensity, sigma, tile=tile)
        again = network.predict(intensity, sigma, tile=tile)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, two, other in zip(found, again, expected, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_missing_channel_does_not_affect_other_tiles(network):
    intensity, sigma = pixels(40)
    clean = network.predict(intensity, sigma, tile=10)[0]
    intensity[2, 15], sigma[4, 27] = np.nan, np.inf
    em, std = network.predict(intensity, sigma, tile=10)
    changed = np.isin(np.arange(40), [15, 27])
    assert np.isfinite(em).all()
    assert np.isfinite(std).all()
    np.testing.assert_allclose(em[:, ~changed], clean[:, ~changed], rtol=1e-5)
    assert (em[:, changed] != clean[:, changed]).any(axis=0).all()


def test_invalid_sigma_is_counted_over_all_tiles(network):
    intensity, sigma = pixels(40)
    sigma[0, 3], sigma[1, 33], sigma[5, 34] = 0, -1, np.nan
    with pytest.raises(ValueError, match="not in 3 of 240 values"):
        network.predict(intensity, sigma, tile=10)


def test_without_std(network):
    intensity, sigma = pixels(50)
    em, std = network.predict(intensity, sigma, std=False)
    assert std is None
    np.testing.assert_allclose(em, network.predict(intensity, sigma)[0], rtol=1e-6)


def readonly(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "given",
    [
        readonly,
        np.asfortranarray,
        lambda array: array.astype(">f4"),
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[:, ::-1][:, ::-1],
        lambda array: array.tolist(),
    ],
    ids=["read-only", "Fortran order", "big-endian", "strided", "reversed", "list"],
)
def test_kinds_of_arrays(network, given):
    intensity, sigma = (array.astype(np.float32) for array in pixels(30))
    em, _ = network.predict(given(intensity), given(sigma))
    np.testing.assert_array_equal(em, network.predict(intensity, sigma)[0])


def test_tensors_give_tensors(network):
    intensity, sigma = (array.reshape(6, 4, 5) for array in pixels(20))
    em, std = network.predict(torch.tensor(intensity), torch.tensor(sigma))
    assert isinstance(em, torch.Tensor)
    assert not em.requires_grad
    for tensor, array in zip((em, std), network.predict(intensity, sigma), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_complex_and_ragged_arrays_raise(network):
    for wrong in (np.ones((6, 3), dtype=complex), torch.ones(6, 3, dtype=torch.complex64), [[1], [2, 3]]):
        with pytest.raises(TypeError, match="array of real numbers"):
            network.predict(wrong, np.ones((6, 3)))


def test_first_layer_stays_in_single_precision(default):
    """Its inputs are the measurements; bfloat16 has two significant digits."""
    layers = list(default._module_in("bfloat16", torch.device("cpu")).layers)
    assert layers[0].weight.dtype == torch.float32
    assert {layer.weight.dtype for layer in layers[2::2]} == {torch.bfloat16}
    assert default.module.layers[2].weight.dtype == torch.float32


def test_infinite_sigma_gives_nan():
    """Also with a network that does not use σ."""
    network = DeepEM(ChapterNetwork(hidden=(8,)), bins=LogTBins())
    em, _ = network.predict(np.ones((6, 2)), np.where(np.arange(2) == 1, np.inf, np.ones((6, 2))))
    assert np.isfinite(em[:, 0]).all()
    assert np.isnan(em[:, 1]).all()


def test_number_of_threads_is_restored(default):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        default.predict(*pixels(20))
        # A new thread takes the number from the process.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_reduced_precision_is_close(default):
    intensity, sigma = solar_pixels(2000)
    full, full_std = default.predict(intensity, sigma, precision="float32")
    reduced, reduced_std = default.predict(intensity, sigma, precision="bfloat16")
    assert reduced.dtype == np.float32
    difference = np.abs(reduced - full).sum(axis=0) / full.sum(axis=0)
    # bfloat16 has eight bits of precision.
    assert 0 < np.median(difference) < 0.01
    assert difference.max() < 0.2
    assert np.median(np.abs(reduced_std - full_std).sum(axis=0) / full_std.sum(axis=0)) < 0.01
    # The network itself is unchanged.
    np.testing.assert_array_equal(default.predict(intensity, sigma, precision="float32")[0], full)


@pytest.mark.parametrize("change", ["in place", "replaced", "not of a layer"])
def test_reduced_precision_follows_changed_weights(change):
    network = DeepEM(ScaledNetwork(np.ones(6), 18, (8,)), bins=LogTBins())
    arrays = solar_pixels(50)
    before = np.concatenate(network.predict(*arrays, precision="bfloat16"))
    weight = network.module.layers[2].weight
    with torch.no_grad():
        if change == "in place":
            weight *= 2
        elif change == "not of a layer":
            network.module.spread_law += 1
        else:
            network.module.layers[2].weight = torch.nn.Parameter(2 * weight)
    after = np.concatenate(network.predict(*arrays, precision="bfloat16"))
    assert (after != before).any()
    anew = DeepEM(copy.deepcopy(network.module), bins=LogTBins())
    np.testing.assert_array_equal(after, np.concatenate(anew.predict(*arrays, precision="bfloat16")))


def test_weights_from_inference_mode():
    """Such tensors do not count their changes."""
    with torch.inference_mode():
        network = DeepEM(ScaledNetwork(np.ones(6), 18, (8,)), bins=LogTBins())
    assert np.isfinite(network.predict(*solar_pixels(5), precision="bfloat16")[0]).all()


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_default_precision_is_the_fastest(default, monkeypatch, has_it, expected):
    monkeypatch.setattr("sunpy_deepem.network.layers._has_fast_bfloat16", lambda _: has_it)
    intensity, sigma = solar_pixels(50)
    asked = default.predict(intensity, sigma, precision=expected)
    for array, same in zip(default.predict(intensity, sigma), asked, strict=True):
        np.testing.assert_array_equal(array, same)


def test_chapter_network_stays_in_single_precision(monkeypatch):
    monkeypatch.setattr("sunpy_deepem.network.layers._has_fast_bfloat16", lambda _: True)
    network = DeepEM(ChapterNetwork(hidden=(8,)), bins=LogTBins())
    intensity, _ = solar_pixels(50)
    full = network.predict(intensity, precision="float32")[0]
    np.testing.assert_array_equal(network.predict(intensity)[0], full)


def test_each_part_runs_on_one_thread(default, monkeypatch):
    intensity, sigma = solar_pixels(60)
    whole = default.predict(intensity, sigma)[0]
    parts = [slice(start, start + 20) for start in (0, 20, 40)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with default.workers() as map_parts:
            # Using torch's threads inside a part would fail.
            monkeypatch.setattr("sunpy_deepem.utils.parallel._torch_threads", None)
            found = list(map_parts(lambda part: default.predict(intensity[:, part], sigma[:, part])[0], parts))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, rtol=1e-2, atol=1e-4 * whole.max())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_process(default):
    """The kept threads of the parent do not exist in the child."""
    intensity, sigma = solar_pixels(50)
    default.predict(intensity, sigma)
    process = multiprocessing.get_context("fork").Process(target=default.predict, args=(intensity, sigma), daemon=True)
    process.start()
    process.join(30)
    assert process.exitcode == 0


def test_unknown_precision(network):
    with pytest.raises(ValueError, match="precision must be one of"):
        network.predict(*pixels(1), precision="float8")


def test_private_names_of_torch_exist():
    """`layers` and `tiles` use them and fall back silently, or slowly, without them."""
    assert isinstance(torch.zeros(1)._version, int)
    assert callable(torch.cpu._is_avx512_bf16_supported)
    if torch.backends.mkldnn.is_available():
        for name in ("_linear_pointwise", "_is_mkldnn_bf16_supported"):
            assert hasattr(torch.ops.mkldnn, name)
