"""What is freed goes back to the system."""

import subprocess
import sys

import pytest

HOARD = """
import sys
import numpy as np
import lazypipe as lp
from lazypipe.engines import resident
if sys.argv[1] == "settled":
    lp.open_engine("serial").close()
first = np.ones(2**20)
del first  # 8 MiB come and go: the threshold of the allocator rises
before = resident.resident_nbytes()
arrays = [np.ones(2**20) for _ in range(20)]
arrays = arrays[-1:]  # the last lies above the others in a heap
print((resident.resident_nbytes() - before) // 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_freed_arrays_are_not_hoarded():
    def left(how):
        done = subprocess.run([sys.executable, "-c", HOARD, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert left("settled") < 40 < left("as it comes")
