"""
Pixels per second on a GPU or another device and end to end, with its limits, the chapter's network and a CPU.

Usage: ``python benchmarks/device.py [--device auto] [--shape 4096] [--rounds 5] [--output benchmarks/output]``. Prints
tables and leaves ``device.json`` in the output folder. Without a GPU it runs on the CPU with fewer pixels. Pixels are
draws of the training prior with the noise of 64 native pixels and 10 % systematic errors.

Rows "on the device" take and return tensors there; the others take and return NumPy arrays, transfers included;
``invert`` makes a cube from a stack. Rounds go through all rows in turn; rates are medians. Arithmetic counts two
operations per weight and pixel, relative to the rate of a large matrix product in the same run; traffic counts the
least bytes to read and write, relative to the rate of a large copy.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from families import CASES, observe
from machine import describe

from sunpy_deepem import DeepEM, TemperatureResponse, invert
from sunpy_deepem.network.layers import dtype_of
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.units import EM_SCALE

_CASE = CASES[3]
# Number of different pixels; more are copies of them.
_DRAWN = 2**16
# Size of the copy and of the matrix product that measure the limits of a device.
_COPIED = {"cuda": 2**28, "cpu": 2**24}
_MULTIPLIED = {"cuda": 8192, "cpu": 2048}


def synchronized(call, device):
    """Return the seconds of a call until the device has finished, and its result."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    answer = call()
    wait()
    return time.perf_counter() - start, answer


def limits(device, rounds):
    """Return bytes/s of a copy and operations/s of a matrix product in the precision of the layers."""
    values = torch.zeros(_COPIED.get(device.type, 2**24), device=device)
    copied, n = torch.empty_like(values), _MULTIPLIED.get(device.type, 2048)
    matrix = torch.zeros(n, n, device=device, dtype=dtype_of("auto", device))
    seconds = np.array(
        [
            [synchronized(call, device)[0] for call in (lambda: copied.copy_(values), lambda: matrix @ matrix)]
            for _ in range(rounds + 1)
        ]
    )
    copying, multiplying = np.median(seconds[1:], axis=0)
    return 2 * values.numel() * values.element_size() / copying, 2 * n**3 / multiplying


def chapters_layers(device, dtype):
    """Return the layers of the chapter's network with random weights."""
    layers = torch.nn.Conv2d(6, 300, 1), torch.nn.Conv2d(300, 300, 1), torch.nn.Conv2d(300, 18, 1)
    activation = torch.nn.LeakyReLU()
    return torch.nn.Sequential(layers[0], activation, layers[1], activation, layers[2]).to(device, dtype)


def chapters_answer(layers, intensity, shape):
    """Return the EM of the chapter's network, called as in the chapter."""
    with torch.no_grad():
        root = intensity.clamp_min(0).sqrt().to(layers[0].weight.dtype)
        return EM_SCALE * layers(root.reshape(1, 6, *shape)).float() ** 2


def stack_of(intensity, sigma, shape):
    """Return a stack of pixels."""
    like = ChannelStack.from_maps(sample_maps((64, 64)))
    arrays = (values.reshape(6, *shape) << like.intensity.unit for values in (intensity, sigma))
    nothing = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.float32)
    return ChannelStack(*arrays, *nothing, like.header, like.inputs, like.meta)


def rows(network, response, arrays, shape, device):
    """Return the calls to time by name, with their operations and bytes per pixel where known."""
    tensors = [torch.from_numpy(values).to(device) for values in arrays]
    stack, options = stack_of(*arrays, shape), {"weights": network, "response": response, "device": str(device)}
    chapter, reduced = (chapters_layers(device, dtype) for dtype in (torch.float32, dtype_of("auto", device)))
    both, others, theirs = (
        operations(layers) for layers in (network.module.layers, network.consistency.layers, chapter)
    )
    # The last layer gives as many σ as EM.
    mean = both - operations(network.module.layers[-1:]) // 2
    return {
        "on the device: EM and σ": (lambda: network.predict(*tensors), both, 4 * 48),
        "on the device: EM alone": (lambda: network.predict(*tensors, std=False), mean, 4 * 30),
        "on the device: float32": (lambda: network.predict(*tensors, precision="float32"), both, 4 * 48),
        "on the device: comparison of channels": (lambda: network.deviation(*tensors), others, 4 * 18),
        "chapter's network on the device": (lambda: chapters_answer(chapter, tensors[0], shape), theirs, 4 * 24),
        "chapter's network, reduced precision": (lambda: chapters_answer(reduced, tensors[0], shape), theirs, 4 * 24),
        "end to end: predict": (lambda: network.predict(*arrays, device=device), None, None),
        "end to end: invert a stack": (lambda: invert(stack, **options), None, None),
    }


def operations(layers):
    """Return the operations of layers per pixel, a product and a sum for each weight."""
    return 2 * sum(layer.weight.numel() for layer in layers if hasattr(layer, "weight"))


def agreement(network, arrays, device):
    """Return median and 99th percentile of the difference in ln(EM) from float32 on a CPU, in bins with over 1 %."""
    part = [values[:, :_DRAWN] for values in arrays]
    reference, _ = network.predict(*part, device="cpu", precision="float32")
    differences = {}
    for precision in ("float32", "auto"):
        em, _ = network.predict(*part, device=device, precision=precision)
        difference = np.abs(np.log(em / reference))[reference > 0.01 * reference.sum(axis=0)]
        differences[precision] = [float(value) for value in np.quantile(difference, [0.5, 0.99])]
    return differences


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument("--shape", type=int, help="pixels along a side; 4096 on a GPU, 512 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    device = resolve_device(args.device)
    n = args.shape or (4096 if device.type == "cuda" else 512)
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"\nOn {device}" + (", as there is no GPU" if not torch.cuda.is_available() else ""))
    response, network = TemperatureResponse.default(), DeepEM.load(args.weights)
    drawn = observe("prior", _CASE, min(_DRAWN, n * n), response, seed=1)[1:]
    arrays = [np.resize(np.asarray(values, dtype=np.float32).T, (n * n, 6)).T.copy() for values in drawn]
    copied, multiplied = limits(device, args.rounds)
    timed = rows(network, response, arrays, (n, n), device)
    times = {name: [] for name in timed}
    for _ in range(args.rounds + 1):
        for name, (call, _, _) in timed.items():
            times[name].append(synchronized(call, device)[0])
    results = {}
    print(f"\ncopy {copied / 1e9:.0f} GB/s, product of matrices {multiplied / 1e12:.2f} T operations/s\n")
    print(f"{'':40s}{'pixels/s':>12s}{'arithmetic':>12s}{'traffic':>10s}")
    for name, (_, *needs) in timed.items():
        rate = n * n / float(np.median(times[name][1:]))
        limited = zip(needs, (multiplied, copied), strict=True)
        shares = [None if need is None else need * rate / most for need, most in limited]
        results[name] = {"rate": rate, "times": times[name], "arithmetic": shares[0], "traffic": shares[1]}
        print(
            f"{name:40s}{rate:12.4g}" + "".join(f"{'' if share is None else f'{share:.1%}':>11s}" for share in shares)
        )
    ratio = results["on the device: EM and σ"]["rate"] / results["chapter's network on the device"]["rate"]
    print(f"\nThe package's network, with σ, is {ratio:.3g} times as fast as the chapter's on the same device.")
    differences = agreement(network, arrays, device)
    for precision, (median, most) in differences.items():
        print(f"|Δ ln EM|, {device} in {precision} and CPU in float32: median {median:.1e}, 99th percentile {most:.1e}")
    content = {"machine": machine, "device": str(device), "shape": n, "copy": copied, "product": multiplied}
    content |= {"results": results, "agreement": differences}
    (args.output / "device.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
