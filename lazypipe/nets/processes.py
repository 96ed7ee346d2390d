"""Groups of processes that train one network together: each learns from its share of every batch, and all sum."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributed as dist

from lazypipe.errors import ConfigError, LazypipeError
from lazypipe.nets.presence import Presence
from lazypipe.nets.rendezvous import TIMEOUT_SECONDS, interface_towards


class Group(Protocol):
    """The processes that train together, as one of them sees it."""

    rank: int
    size: int
    device: torch.device

    def sum_(self, *tensors: Tensor) -> None:
        """Sum each tensor over all ranks, in place: the same bits on every rank, and with every run of that size."""

    def agree(self, value: int) -> int:
        """The value that rank 0 has, on every rank."""


class Alone:
    """A group of one."""

    rank, size = 0, 1

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)

    def sum_(self, *tensors: Tensor) -> None:
        """Nothing: what there is, is the sum."""

    def agree(self, value: int) -> int:
        return value


class Joined:
    """A rank of a group that has met: gloo, or NCCL where each rank has a CUDA device of its own.

    After a failure every call raises the error that ended the group, in the same words on every rank.
    """

    def __init__(self, presence: Presence, device: torch.device):
        self.rank, self.size, self.device = presence.rank, presence.size, device
        self._presence = presence
        self._error: LazypipeError | None = None
        devices = presence.arrive(device_name(device))
        nccl = len(set(devices)) == self.size and all(name.startswith("GPU") for name in devices)
        with self._together():
            self._group: Any = _meet(presence, nccl)
        self._small = device if nccl else torch.device("cpu")  # where a single number is agreed on

    def sum_(self, *tensors: Tensor) -> None:
        """Sum each tensor over all ranks, in place, with the same bits on every rank.

        Tensors are dense, of one shape on all ranks, and may lie on the device of the group or on the CPU (gloo).
        EngineError names the rank that is missing: 10 s (a third of the timeout, if less) after it was killed, or
        after the timeout where it hangs. Sums of several tensors go side by side.
        """
        with self._together():
            works = [self._group.allreduce([tensor]) for tensor in tensors]
            for work in works:
                work.wait()

    def agree(self, value: int) -> int:
        """The value that rank 0 has, on every rank. A sum of its own, of one number."""
        with self._together():
            number = torch.tensor([value], dtype=torch.int64, device=self._small)
            options = dist.BroadcastOptions()
            options.rootRank = 0
            self._group.broadcast([number], options).wait()
            return int(number)

    def close(self) -> None:
        """Close the connections to the others, who would else wait for this rank until the timeout."""
        self._group = None

    @contextmanager
    def _together(self) -> Iterator[None]:
        if self._error is not None:
            raise self._error
        self._presence.sums += 1
        begun = time.monotonic()
        try:
            yield
        except RuntimeError as failure:
            timed_out = time.monotonic() - begun > 0.9 * self._presence.timeout
            self._error = self._presence.judge(failure, timed_out)
            raise self._error from failure


def _meet(presence: Presence, nccl: bool) -> Any:
    """The process group of torch, of this group alone: none is set for the whole process."""
    store = dist.PrefixStore("group", presence.store)  # type: ignore[attr-defined]  # torch's stubs do not export it
    timeout = timedelta(seconds=presence.timeout)
    if nccl:
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # else a lost rank ends the process, without an error
        nccl_options = dist.ProcessGroupNCCL.Options()
        nccl_options._timeout = timeout
        return dist.ProcessGroupNCCL(store, presence.rank, presence.size, nccl_options)
    # The interface that leads to the driver; gloo's own choice, what the host's name stands for, may be 127.0.1.1.
    host, _, port = presence.address.rpartition(":")
    towards = interface_towards(host, port)
    options: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # torch's stubs lack it
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=towards)]
    options._timeout = timeout
    return dist.ProcessGroupGloo(store, presence.rank, presence.size, options)


def device_name(device: torch.device) -> str:
    """What tells two devices apart across machines: a GPU's unique number; all CPUs are one."""
    if device.type != "cuda" or not dist.is_nccl_available():
        return device.type
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


@contextmanager
def join(
    rank: int,
    size: int,
    address: str,
    timeout: float = TIMEOUT_SECONDS,
    device: torch.device | str = "cpu",
) -> Iterator[Group]:
    """Meet the other ranks at the ``address`` of a Rendezvous, and be one group with them until the block ends.

    ``timeout``, in seconds, is for all to come, and for the slowest in every sum. A group ends as one: what one
    rank raises in its block, all others raise at their next sum: a LazypipeError as it is, another as an
    EngineError that names the rank, also on that rank. No rank leaves the block before all have come to its end.
    """
    if not 0 <= rank < size:
        raise ConfigError(f"rank {rank}: a group of {size} has ranks 0 to {size - 1}.")
    presence, group = Presence(rank, size, address, timeout), None
    try:
        group = Joined(presence, torch.device(device))
        yield group
        presence.leave()
    except LazypipeError as error:
        presence.fail(error)
        raise
    except Exception as error:
        raise presence.fail(error) from error
    except BaseException as error:
        presence.fail(error)
        raise
    finally:
        presence.close()
        if group is not None:
            group.close()  # whoever holds the error holds the frames in which the group is
