"""The table of the README: of each benchmark what lazypipe took, what its peers took, and the memory of both."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lazypipe.sizes import show_bytes

START, END = "<!-- made by benchmarks/bench.py -->", "<!-- end -->"
HEAD = "| | lazypipe | beside it | × |\n|---|---|---|---:|"
REPORTS = ("peers", "spikes", "sweep", "networks")
HEADS = {"tall": "covariance", "wide": "ten components"}
# Of the peers' tables: ours, and those that it is put beside.
PEERS = {
    "tall": [("lazypipe_dask", ("numpy_by_hand", "dask_cov", "mllib_covariance"))],
    "wide": [
        ("lazypipe_panels_1e3", ("sklearn_randomized_1e3", "dask_svd_1e3")),
        ("lazypipe_panels_1e6", ("scipy_lobpcg", "sklearn_randomized_1e6")),
    ],
}
SPIKES = {"stimulus": ("pynapple_average", "elephant"), "array-spread": ("spikeinterface", "numpy_in_batches")}
BY_HAND = ("numpy_in_batches",)  # where no peer is installed
NETWORKS = {"mlp": ("torch by hand", "torch autograd", "scikit-learn"), "rbm": ("torch by hand", "scikit-learn")}


def table(results: Path) -> str:
    """Of the reports in ``results``: machine and date of each, and a row for each thing measured."""
    reports = {name: read(results / f"{name}.json") for name in REPORTS}
    found = {name: report for name, report in reports.items() if report}
    if not found:
        return f"Nothing is measured in {results}."
    makers = {"peers": of_peers, "spikes": of_spikes, "sweep": of_sweep, "networks": of_networks}
    rows = [row for name, report in found.items() for row in makers[name](report)]
    return "\n".join([*machines(found), "", HEAD, *rows])


def machines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """When and on what each was measured, together where it is the same."""
    together: dict[str, list[str]] = {}
    for name, report in found.items():
        where = f"{report['machine'].removeprefix('machine: ')}; {report['date']}"
        together.setdefault(where, []).append(name)
    for where, names in together.items():
        yield f"{', '.join(names)}: {where}."


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def row(what: str, ours: str, peers: list[tuple[str, str]]) -> str:
    """A line of the table; peers, if there are any, one below the other."""
    names, times = ("<br>".join(one) for one in zip(*peers or [("", "")], strict=True))
    return f"| {what} | {ours} | {names} | {times} |"


def multiple(theirs: float, ours: float) -> str:
    """How many times longer, to three digits."""
    ratio = theirs / ours
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def taken(seconds: float, nbytes: float | None) -> str:
    """Seconds, and resident memory."""
    digits = f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
    return digits if nbytes is None else f"{digits}, {show_bytes(int(nbytes))}"


def of_peers(report: Mapping[str, Any]) -> Iterator[str]:
    for kind, pairs in PEERS.items():
        part = report.get(kind)
        if not part:
            continue
        n_rows, n_columns = part["shape"]
        rows = {one["name"]: one for one in part["rows"]}
        for name, others in pairs:
            if "seconds" not in rows.get(name, {}):
                continue
            ours = rows[name]
            what = f"{HEADS[kind]} of {n_rows:,} × {n_columns:,} float32"
            if kind == "wide":
                what += f" to an angle of 1e-{name[-1]}"
            yield row(
                what,
                taken(ours["seconds"], ours["resident"]),
                [beside(rows[other], ours, n_rows * n_columns) for other in others if other in rows],
            )


def beside(peer: Mapping[str, Any], ours: Mapping[str, Any], entries: int) -> tuple[str, str]:
    """What a peer took, and as a multiple of ours; of a part of the data, scaled to all of them."""
    if "seconds" not in peer:
        over = f"over {peer['over']:g} s" if "over" in peer else "failed"
        return f"{peer['title']}: {over}", ""
    share = entries / (peer["shape"][0] * peer["shape"][1])
    seconds = peer["seconds"] * share
    of_part = f", at the rate of 1/{share:.0f} of it" if share > 1 else ""
    told = f"{peer['title']}: {taken(seconds, peer['resident'])}{of_part}"
    return told, multiple(seconds, ours["seconds"])


def of_spikes(report: Mapping[str, Any]) -> Iterator[str]:
    for recording in report["recordings"]:
        for case in recording["cases"]:
            rows = {one["name"]: one for one in case["rows"]}
            if case["name"] not in SPIKES or "seconds" not in rows.get("lazypipe", {}):
                continue
            ours = rows["lazypipe"]
            there = [name for name in SPIKES[case["name"]] if "seconds" in rows.get(name, {})]
            peers = [rows[name] for name in there or BY_HAND]
            yield row(
                f"averages around spikes: {recording['title'].partition(':')[0]}, {case['what'].split(' (')[0]}",
                taken(ours["seconds"], ours["resident"]),
                [
                    (
                        f"{one['title']}: {taken(one['seconds'], one['resident'])}",
                        multiple(one["seconds"], ours["seconds"]),
                    )
                    for one in peers
                ],
            )


def of_sweep(report: Mapping[str, Any]) -> Iterator[str]:
    stages = report["stages"]
    ours, peer = stages.get("lazypipe-1"), stages.get("scikit-1")
    if not ours or not peer or "whole" not in ours["parts"] or "whole" not in peer["parts"]:
        return
    mine, other = ours["parts"]["whole"], peer["parts"]["whole"]
    yield row(
        f"sweep of logistic regression, {len(mine['cells'])} cells up to {max(mine['sizes']):,} rows, one thread",
        taken(mine["seconds"], mine["resident"]),
        [(f"scikit-learn: {taken(other['seconds'], other['resident'])}", multiple(other["seconds"], mine["seconds"]))],
    )


def of_networks(report: Mapping[str, Any]) -> Iterator[str]:
    titles = {"mlp": "perceptron 784-{hidden}-10", "rbm": "Boltzmann machine 784-{hidden}, CD-1"}
    for stage, others in NETWORKS.items():
        lines = [one for one in report["stages"].get(stage, {}).get("lines", ()) if one.get("kind") == "contender"]
        if not lines:
            continue
        threads = max(one["threads"] for one in lines)
        rates = {one["contender"]: one for one in lines if one["threads"] == threads}
        ours = rates["lazypipe"]
        yield row(
            f"{titles[stage].format(**ours)}, batches of {ours['batch']}, {threads} threads",
            f"{ours['rate']:,.0f} samples/s",
            [
                (f"{name}: {rates[name]['rate']:,.0f} samples/s", multiple(ours["rate"], rates[name]["rate"]))
                for name in others
                if name in rates
            ],
        )
