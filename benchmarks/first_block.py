"""``python -m jobs …`` or a flow, that tells when it was called, when its first pass began, when a block was folded.

python benchmarks/first_block.py jobs pca --source … | python benchmarks/first_block.py flow --source …
"""

import contextlib
import io
import json
import runpy
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

TIMES: dict[str, float] = {}


def listen(event: object) -> None:
    # Spark tells of tasks now and then; a small pass is over before.
    name = {"StageStarted": "stage", "TaskDone": "block", "StageDone": "block"}.get(type(event).__name__)
    if name and name not in TIMES:
        TIMES[name] = time.time()
        TIMES["cpu"] = time.process_time()


def main() -> None:
    how, *arguments = sys.argv[1:]
    from jobs._observed import observed

    with observed(listen), contextlib.redirect_stdout(io.StringIO()):
        if how == "jobs":
            TIMES["called"] = time.time()
            sys.argv = ["jobs", *arguments]
            try:
                runpy.run_module("jobs", run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                if ended.code:
                    raise
        else:
            from flows.pca import pca
            from jobs._cli import parse
            from jobs.pca import PCAConfig

            config = parse("pca", PCAConfig, arguments)
            TIMES["called"] = time.time()
            pca(config)
    print(json.dumps(TIMES))


if __name__ == "__main__":
    main()
