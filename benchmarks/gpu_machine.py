"""What a GPU machine is: hardware, driver, versions."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version

import torch


def describe(device: torch.device, bandwidth: float, launch_s: float) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "GPU": properties.name,
        "memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "multiprocessors": str(properties.multi_processor_count),
        "compute capability": f"{properties.major}.{properties.minor}",
        "driver and clocks": _ask_driver(),
        "copy bandwidth": f"{bandwidth / 1e12:.3f} TB/s, read and written",
        "empty launch": f"{1e6 * launch_s:.1f} µs",
        "versions": f"torch {torch.__version__}, triton {version('triton')}, CUDA {torch.version.cuda}, "
        f"Python {platform.python_version()}",
        "processor": platform.machine(),
    }


def _ask_driver() -> str:
    fields = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip().splitlines()[0]
