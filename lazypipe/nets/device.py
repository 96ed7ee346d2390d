"""Where a network is trained, and how its numbers are rounded there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lazypipe.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
MATMUL_PRECISIONS = ("highest", "high", "medium")


def device_of(name: str, gpu: int | None = None) -> torch.device:
    """``auto``: a GPU where torch sees one. ``gpu`` is the number of the one that was given to this task.

    Raises ConfigError for "cuda" where there is none.
    """
    if name not in DEVICES:
        raise ConfigError(f"device: {name!r} is not one of {', '.join(DEVICES)}.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if why := why_no_gpu():
        raise ConfigError(
            f"device: cuda was asked for, but {why} on this machine. Pass device='auto' or 'cpu' (--device cpu), or "
            f"run where there is a GPU."
        )
    return torch.device("cuda", gpu if gpu is not None else torch.cuda.current_device())


def why_no_gpu() -> str:
    """Why torch can use none here; nothing where it can."""
    if torch.cuda.is_available():
        return ""
    return "torch sees no GPU" if torch.version.cuda else f"torch {torch.__version__} is a build without CUDA"


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def arithmetic(matmul_precision: str = "highest", threads: int | None = None) -> Iterator[None]:
    """Products of float32 of that precision (``torch.set_float32_matmul_precision``), on so many threads.

    None: every core, although engines give a task one thread of BLAS: a training is a task alone. What was set
    before comes back.
    """
    if matmul_precision not in MATMUL_PRECISIONS:
        raise ConfigError(f"matmul_precision: {matmul_precision!r} is not one of {', '.join(MATMUL_PRECISIONS)}.")
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision(matmul_precision)
    torch.set_num_threads(threads or cores())
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


def memory_used(device: torch.device) -> int:
    """Bytes of the device's memory that torch holds tensors in, at most so far; 0 on a processor."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
