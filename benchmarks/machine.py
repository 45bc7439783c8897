"""The machine of the benchmarks: `describe`, and the origin of results: `origin`."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

_PACKAGES = ("sunpy_deepem", "torch", "numpy", "sunpy", "aiapy", "demregpy", "EMToolKit", "emcee", "utu")


def describe():
    """Return date, processor, cores, memory, load and versions, as a `dict` for JSON."""
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load": load,
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def origin(network):
    """Return date, version of the package and fingerprint of the weights, as a `dict` for JSON."""
    facts = describe()
    version = facts["versions"].get("sunpy_deepem", "unknown")
    return {"date": facts["date"], "version": version, "fingerprint": getattr(network, "fingerprint", "none")}


def _processor():
    """Return the name of the processor, which `platform.processor` lacks on Linux."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    facts = dict((part.strip() for part in line.split(":", 1)) for line in path.read_text().splitlines() if ":" in line)
    return f"{facts.get('model name', platform.processor())}, family {facts.get('cpu family', '?')}"


def _memory():
    """Return the memory of the machine in GiB, `None` if it is unknown."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
