"""What trained networks say of a source, by blocks: the memory that it takes."""

import subprocess
import sys

import pytest

MEASURED = """
import sys
import numpy as np
import torch
from lazypipe.engines import resident
from lazypipe.nets.autoencoder import Autoencoder
from lazypipe.nets.layers import Stack
from lazypipe.nets.mlp import MLP
from lazypipe.nets.network import Shape
from lazypipe.nets.rbm import RBM

kind = sys.argv[1]
resident.return_large_arrays()
x = np.zeros((60_000, 10), np.float32)
if kind == "mlp":
    shape = Shape((10, 1024, 512, 3), "relu", "cross_entropy")
    model = MLP((1024, 512), device="cpu", threads=1)._filled(shape, np.arange(3), np.zeros(shape.n_parameters, "f4"))
    calls = [model.predict, model.predict_proba]
elif kind == "autoencoder":
    model = Autoencoder((1024, 4), device="cpu", threads=1)
    shape = Shape((10, 1024, 4, 1024, 10), "relu", "squared_error", 2)
    model.shape_, model._vector, model.n_components_ = shape, np.zeros(shape.n_parameters, "f4"), 4
    calls = [model.transform, model.reconstruct, model.reconstruction_error]
else:
    model = RBM(2048, device="cpu", threads=1)
    weight = np.zeros((2048, 10), np.float32)
    model._take(Stack((10, 2048), (weight,), (weight[:, 0],), 1.0, (weight[0],)))
    calls = [model.reconstruct, model.free_energy, model.score_samples]
for call in calls:
    call(x[:10])  # loads what it needs
    before = resident.resident_nbytes()
    resident.reset_peak()
    call(x)
    print(resident.peak_nbytes() - before)
"""
BLOCK, ROWS, LIBRARIES = 2**23, 4 * 60_000 * 10, 2**23


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("kind", ["mlp", "autoencoder", "rbm"])
def test_hidden_units_of_a_source_take_no_more_than_a_block(kind):
    """Of 60,000 rows at once they would be 120 to 480 MB."""
    command = [sys.executable, "-c", MEASURED, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for taken in map(int, done.stdout.split()):
        assert taken <= BLOCK + 2 * ROWS + LIBRARIES, done.stdout  # the rows as a stream holds them, and the answer
