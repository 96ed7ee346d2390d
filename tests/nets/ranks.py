"""What the processes of a group do in tests: importable, so that it can be sent to them.

Run as a script, with what to do and its arguments, it is a rank or a parent that is about to be killed.
"""

import os
import signal
import sys
import time
from functools import partial
from zlib import crc32

import torch

from lazypipe.errors import DataError
from lazypipe.nets.processes import join
from lazypipe.nets.spawning import spawned
from lazypipe.progress import StepsDone


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def checks(group, tensor):
    """The check sum of every rank's tensor."""
    found = torch.zeros(group.size, dtype=torch.int64)
    found[group.rank] = crc32(tensor.numpy().tobytes())
    group.sum_(found)
    return found.tolist()


def descend(group, rows, targets, n_steps, tell=lambda event: None):
    """The weights (D,) of least squares after so many steps over all rows, of which each rank has its share."""
    mine = slice(group.rank, None, group.size)
    weights = torch.zeros(rows.shape[1])
    for step in range(n_steps):
        gradient = rows[mine].T @ (rows[mine] @ weights - targets[mine]) / len(rows)
        loss = ((rows[mine] @ weights - targets[mine]) ** 2).sum() / len(rows)
        group.sum_(gradient, loss)
        weights -= 0.1 * gradient
        tell(StepsDone("", step + 1, {"loss": float(loss)}))
    return weights


def train(group, tell, rows, targets, n_steps):
    weights = descend(group, rows, targets, n_steps, tell)
    return weights, checks(group, weights), group.agree(10 + group.rank), torch.get_num_threads()


def refuse(group, tell, error):
    """Rank 1 raises while the others wait for it."""
    if group.rank == 1:
        raise error
    group.sum_(torch.zeros(3))


def killed(group, tell, how=signal.SIGKILL):
    group.sum_(torch.zeros(3))
    if group.rank == 1:
        os.kill(os.getpid(), how)
    group.sum_(torch.zeros(3))


def unfinished(group, tell, path=None):
    """Tell that all ranks are at work, and go on."""
    pids = torch.zeros(group.size, dtype=torch.int64)
    pids[group.rank] = os.getpid()
    group.sum_(pids)
    tell(StepsDone("", 1, {str(pid): 0.0 for pid in pids.tolist()}))
    if path and group.rank == 0:
        with open(path + ".part", "w") as file:
            file.write(" ".join(map(str, pids.tolist())))
        os.rename(path + ".part", path)
    time.sleep(600)


def complain(group, tell):
    raise DataError("x.npy: NaN at row 3. Leave it out.")


if __name__ == "__main__" and sys.argv[1] == "rank":
    with join(1, 2, sys.argv[2], float(sys.argv[3])) as joined:
        killed(joined, None, signal.Signals[sys.argv[4]])
elif __name__ == "__main__":
    from nets import ranks

    spawned(partial(ranks.unfinished, path=sys.argv[2]), 2)
