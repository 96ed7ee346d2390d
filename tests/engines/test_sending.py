"""A driver that is interrupted while it sends something leaves nothing of it on the scheduler."""

import signal
import sys
import time

import cloudpickle
import numpy as np
from distributed import Client

from lazypipe.engines.dask_sending import sent

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Interrupted(BaseException):
    """What a signal raises."""


def known(dask_scheduler):
    """Tasks, and how many clients."""
    return list(dask_scheduler.tasks), len(dask_scheduler.clients)


def test_nothing_that_was_on_its_way_stays_on_the_scheduler(dask_scheduler, dask_worker):
    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        with dask_worker("--nthreads", "1", "--no-nanny"), Client(dask_scheduler, timeout=60) as watcher:
            watcher.wait_for_workers(1, timeout=60)
            for attempt in range(12):
                client = Client(dask_scheduler, timeout=60)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.02 + 0.01 * attempt)
                    over = time.monotonic() + 5  # where the signal came while something was deleted, which drops it
                    while time.monotonic() < over:
                        sent(client, [np.zeros(100_000), attempt], None, True)
                except Interrupted:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    client.close()
            assert interrupted >= 6
            deadline = time.monotonic() + 10
            while (left := watcher.run_on_scheduler(known)) != ([], 2) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert left == ([], 2)  # the watcher, and one that Dask itself has
    finally:
        signal.signal(signal.SIGALRM, before)
