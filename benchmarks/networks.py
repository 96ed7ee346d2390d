"""Networks: how fast lazypipe trains them beside what people would write or take instead, and what they reach.

    python benchmarks/networks.py [--quick] [--folder data/networks] [--results benchmarks/results]
    python benchmarks/networks.py --only mlp rbm            # these stages alone
    python benchmarks/networks.py --again mnist-mlp         # of what is done this stage anew
    python benchmarks/networks.py --draw                    # tables and figures again, from networks.json

Stages, each in a process of its own, that saves what it found at its end and is skipped where that is there:
mlp (784-1024-10 beside loops by hand and scikit-learn), rbm (784-256 beside a loop by hand and scikit-learn),
mnist-mlp and mnist-dbn (test error of the last epoch), few-labels (pre-trained networks beside others),
codes (an autoencoder beside PCA), processes (one and two), gpu (where there is one). All on MNIST, but few-labels on
notMNIST's letters. Writes networks.json, networks.md and networks*.png. The machine should do nothing else; --quick
does it all with few rows, in a folder of its own.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# What would take threads or kernels away from a contender.
for name in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.pop(name, None)

import letters
import network_data
from apart import in_own_process
from common import cores, describe_machine, earlier, today, versions

VERSIONS = ("lazypipe", "torch", "numpy", "scipy", "scikit-learn")
STAGES = ("mlp", "rbm", "mnist-mlp", "mnist-dbn", "few-labels", "codes", "processes", "gpu")
LIMIT = 3600  # seconds that a stage may take
HERE = Path(__file__).resolve().parent
QUICK: dict[str, Any] = {
    "digits": 3_000, "hidden": 1_024, "rounds": 1, "optimizer_rows": 1_280, "optimizer_rounds": 1, "process_rounds": 1,
    "gemm": 500, "rbm_rows": 2_000, "rbm_hidden": 64, "rbm_epochs": 2, "mlp_epochs": 2, "seeds": 2, "dbn_seeds": 2,
    "layers": [64, 64, 128], "pretrain_epochs": 1, "tune_epochs": 2, "few_labels": [100, 300], "few_seeds": 2,
    "few_pretrain": 2, "few_epochs": 5, "few_layers": [64, 64, 64], "code_rows": 2_000, "codes": [5, 20],
    "code_layers": [64, 32], "code_pretrain": 1, "code_epochs": 2,
}  # fmt: skip
FULL: dict[str, Any] = {
    "digits": None, "hidden": 1_024, "rounds": 5, "optimizer_rows": 12_800, "optimizer_rounds": 3, "process_rounds": 2,
    "gemm": 2_048, "rbm_rows": 20_000, "rbm_hidden": 256, "rbm_epochs": 10, "mlp_epochs": 15, "seeds": 3,
    "dbn_seeds": 2, "layers": [500, 500, 2_000], "pretrain_epochs": 15, "tune_epochs": 25,
    "few_labels": [100, 300, 1_000, 5_000], "few_seeds": 5, "few_pretrain": 15, "few_epochs": 20,
    "few_layers": [500, 500, 500], "code_rows": 20_000, "codes": [2, 5, 10, 20, 30], "code_layers": [500, 250],
    "code_pretrain": 5, "code_epochs": 20,
}  # fmt: skip


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=letters.DATA, help="the folder that holds MNIST and notMNIST")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores()}), help="of the rates")
    parser.add_argument("--batch", type=int, default=128, help="rows a step of perceptrons, in the rates")
    parser.add_argument("--quick", action="store_true", help="few rows, small networks: all of it in a minute or two")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help="only these stages")
    parser.add_argument("--again", nargs="+", choices=STAGES, default=[], metavar="STAGE", help="these anew")
    parser.add_argument("--folder", type=Path, help="where digits and letters are kept (250 MB)")
    parser.add_argument("--results", type=Path, help="where tables and figures go")
    parser.add_argument("--draw", action="store_true", help="only write again what networks.json holds")
    for name, value in FULL.items():
        several = {"nargs": "+"} if isinstance(value, list) else {}
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"usually {value or 'all'}", **several)
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # the process of one
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    kept = HERE.parent / "data" / ("networks-quick" if options.quick else "networks")
    options.folder = (options.folder or kept).resolve()
    options.results = options.results or (options.folder / "results" if options.quick else HERE / "results")
    return options


def asked_of(options: argparse.Namespace) -> dict[str, Any]:
    """What results have to share to be told together."""
    found = {name: getattr(options, name) for name in FULL}
    return {"machine": describe_machine(), "quick": options.quick, "batch": options.batch, **found}


def work(options: argparse.Namespace) -> None:
    """What the process of a stage does: lines of JSON."""
    import network_codes
    import network_digits
    import network_machines
    import network_rates

    stages = {
        "mlp": network_rates.perceptrons, "processes": network_rates.processes, "gpu": network_rates.gpu,
        "rbm": network_machines.machines, "mnist-mlp": network_digits.perceptron, "mnist-dbn": network_digits.belief,
        "few-labels": network_digits.few_labels, "codes": network_codes.codes,
    }  # fmt: skip
    network_rates.measured(stages[options.stage], network_data.Data(options.folder), options)


def run_stage(stage: str) -> dict[str, Any]:
    """A stage in a process of its own; what it found."""
    given = [word for word in sys.argv[1:] if word != "--draw"]
    begun = time.perf_counter()
    lines, ended = in_own_process(
        [sys.executable, "-W", "ignore", str(HERE / "networks.py"), *given, "--stage", stage], LIMIT
    )
    found: dict[str, Any] = {"took": time.perf_counter() - begun, "lines": lines}
    failure = next((line["failure"] for line in lines if "failure" in line), ended)
    return {**found, "failure": failure} if failure else found


def main() -> None:
    options = options_of()
    if options.stage:
        return work(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stage's process then ends too
    from networks_report import write

    saved = options.results / "networks.json"
    if options.draw:
        return write(json.loads(saved.read_text()), options.results)
    options.results.mkdir(parents=True, exist_ok=True)
    print(describe_machine(), versions(VERSIONS), f"load {os.getloadavg()[0]:.1f}", sep="\n", flush=True)
    text = network_data.write(options.folder, options.data, options.digits)
    identity = {**asked_of(options), "data": text}
    report = earlier(saved, identity) or {"identity": identity, "stages": {}}
    report |= {"date": today(), "machine": describe_machine(), "versions": versions(VERSIONS), "data": text}
    done = report["stages"]
    for stage in options.only or STAGES:
        if stage not in options.again and stage in done and "failure" not in done[stage]:
            print(f"  {stage:<12} is there", flush=True)
            continue
        done[stage] = run_stage(stage)
        print(f"  {stage:<12} {done[stage]['took']:7.1f} s  {done[stage].get('failure', '')}", flush=True)
        saved.write_text(json.dumps(report, indent=1) + "\n")
    return write(report, options.results)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
