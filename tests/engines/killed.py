"""Jobs that kill themselves. Run as a script it reads a job a line (JSON) and forks a child for each, so that
a child costs no imports; the answer is the child's exit status, negative for a signal.

A job: ``kind`` (covariance, dbn, pca, spikes, sweep, tiles), ``source``, ``state`` (a folder, or the store of tiles),
``log`` (a file that gets a line for each stage, task, tile, and size that is fitted), ``result`` (an .npz),
``options``, and ``die``: what, and its how-manieth time, to die at. A test that wants many groups of little data
gives ``run_nbytes``.
"""

import io
import json
import os
import signal
import sys
import warnings

import numpy as np

import lazypipe as lp
from lazypipe import plan
from lazypipe.engines import serial  # noqa: F401  imported once, before the forks
from lazypipe.io import tile_store
from lazypipe.models.sweep.task import FitPrefix
from lazypipe.nets.dbn import DBN

MEMORY = "64MiB"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Deaths:
    """Counts what happens, and dies at the n-th of one kind."""

    def __init__(self, log, what=None, n=0):
        self.what, self.left = what, n
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def happens(self, what):
        if what == self.what:
            self.left -= 1
            return self.left == 0
        return False

    def __call__(self, event):
        name = type(event).__name__
        detail = f" {event.n_bytes} {event.title}" if isinstance(event, lp.progress.StageStarted) else ""
        os.write(self.log, f"{name}{detail}\n".encode())
        if self.happens(name):
            die()

    def patch(self):
        """Die with half a state written, or before or after what is written gets its name."""
        savez, replace, write_chunk = np.savez, os.replace, tile_store.write_chunk

        def half_saved(file, **arrays):
            dies = self.happens("savez")
            whole = io.BytesIO()
            savez(whole, **arrays)
            file.write(whole.getvalue()[: whole.tell() // 2 if dies else None])
            file.flush()
            if dies:
                die()

        def replaced(*names):
            if self.happens("before replace"):
                die()
            replace(*names)
            if self.happens("after replace"):
                die()

        def written(path, values):
            write_chunk(path, values)
            os.write(self.log, f"wrote {path.parent.name}/{path.name}\n".encode())

        np.savez, os.replace, tile_store.write_chunk = half_saved, replaced, written
        fit = FitPrefix.__call__

        def fitted(work, task):
            os.write(self.log, f"fit {task.size}\n".encode())
            if self.happens("fit"):
                die()
            return fit(work, task)

        FitPrefix.__call__ = fitted


def work(job):
    warnings.simplefilter("ignore")
    plan.RUN_NBYTES = job.get("run_nbytes", plan.RUN_NBYTES)
    deaths = Deaths(job["log"], *job.get("die", ()))
    savez = np.savez
    deaths.patch()
    options = job.get("options", {})
    memory = job.get("memory", MEMORY)
    with lp.open_engine("serial", memory=memory, progress=lp.progress.Progress((deaths,))) as engine:
        if job["kind"] == "pca":
            pca = lp.PCA(**options).fit(job["source"], engine=engine, state=job.get("state"))
            arrays = {"values": pca.explained_variance_, "components": pca.components_, "mean": pca.mean_}
        elif job["kind"] == "spikes":
            spikes = {u: np.arange(7 + u, 40_000, 101 + 13 * u) for u in range(3)}
            place = {"state": job.get("state"), "engine": engine}
            found = lp.spike_triggered_average(job["source"], spikes, (-6, 4), **place, **options)
            arrays = {"mean": found.mean, "std": found.std, "n_used": found.n_used}
        elif job["kind"] == "sweep":
            x = np.load(job["source"])[:3_000]
            half = (x[:2_000], x[:2_000, 0].astype(int) % 3), (x[2_000:], x[2_000:, 0].astype(int) % 3)
            found = lp.regularization_sweep(*half, state=job.get("state"), engine=engine, **options)
            columns = found.table.drop_columns(["seconds"])
            arrays = {name: columns[name].to_numpy() for name in columns.column_names if name not in ("seed", "note")}
            arrays |= {"confusion": found.best.confusion, "coef": found.best.coef}
            arrays = {name: values.astype("U") if values.dtype == object else values for name, values in arrays.items()}
        elif job["kind"] == "dbn":
            x = np.load(job["source"])[:600].astype(np.float32)
            model = DBN((12, 8), threads=1, pretraining={"visible": "gaussian", "epochs": 2}, **options)
            model.fit(x, x[:, 0].astype(int) % 3, engine=engine, state=job.get("state"))
            arrays = {"probabilities": model.predict_proba(x)}
        else:
            where = {"out" if job["kind"] == "tiles" else "state": job.get("state")}
            found = lp.covariance(job["source"], engine=engine, **where, **options)
            arrays = {"mean": found.mean, "covariance": found.covariance[:, :]}
    savez(job["result"], **arrays)


def serve():
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                work(json.loads(line))
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
