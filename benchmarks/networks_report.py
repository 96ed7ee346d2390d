"""What networks.py found, as Markdown and figures; and which targets are reached."""

import statistics
from pathlib import Path
from typing import Any

from network_tables import Told, gains_of, on_threads, ratio

from lazypipe.figures import BLUE, GREY

Target = tuple[str, str, bool]
QUICK = """
Few rows and small networks: these numbers tell that the benchmark runs, and nothing of lazypipe.
"""
TOP = """# Networks: lazypipe beside its peers, and what it reaches

By `python benchmarks/networks.py{quick}`: {machine}; {torch}; {versions}.

{data}

Contenders of a table took turns in one process, round by round; rates are the median of the rounds, and ratios the
median of the ratios in each round. lazypipe's turn is a whole `fit` through an engine, of which the epochs after the
first count; "whole call" is all of it: plan, reading, three epochs. Of GEMM: additions and multiplications of a step's
products, as a share of torch's rate at {gemm:,} × {gemm:,} on as many threads in the same run.
"""


def write(report: dict[str, Any], folder: Path) -> None:
    told = Report(report)
    text = told.top() + (QUICK if told.asked["quick"] else "") + told.targets()
    for part in (told.perceptrons, told.optimizers, told.machines, told.digits, told.belief, told.labels, told.codes):
        text += part()
    text += told.processes() + told.gpu() + told.stages()
    (folder / "networks.md").write_text(text)
    draw(told, folder)
    print(text)


class Report(Told):
    """All of it, and its targets."""

    def top(self) -> str:
        report = self.report
        torch = next((self.only(stage, "torch") for stage in report["stages"] if self.only(stage, "torch")), "no torch")
        return TOP.format(
            quick=" --quick" if self.asked["quick"] else "", machine=report["machine"].removeprefix("machine: "),
            torch=torch.split(";")[0], versions=report["versions"], data=report["data"], gemm=self.asked["gemm"],
        )  # fmt: skip

    def targets(self) -> str:
        found = [*self._speed(), *self._machines(), *self._errors(), *self._gain(), *self._codes()]
        text = "\n## Targets\n\n| target | found | |\n|---|---|---|\n"
        return text + "".join(
            f"| {what} | {value} | {'reached' if good else '**missed**'} |\n" for what, value, good in found
        )

    def _speed(self) -> list[Target]:
        targets: list[Target] = []
        for threads in self.threads("mlp"):
            rates = self.rates("mlp", threads)
            ours, on = rates["lazypipe"], on_threads(threads)
            if threads > 1:
                targets.append(reached(f"mlp, {on}: samples/s", ours["rate"], 50_000, "{:,.0f}"))
            for other, goal in (("torch autograd", 0.95), ("torch by hand", 0.95), ("scikit-learn", 1.5)):
                what = f"mlp, {on}: of the rate of {other}"
                targets.append(reached(what, ratio(ours, rates[other]), goal, "{:.2f}"))
            what = f"mlp, {on}: streamed, of resident"
            targets.append(reached(what, ratio(rates["lazypipe streamed"], ours), 0.9, "{:.2f}"))
        return targets

    def _machines(self) -> list[Target]:
        targets: list[Target] = []
        for threads in self.threads("rbm"):
            rates, on = self.rates("rbm", threads), on_threads(threads)
            if threads > 1:
                targets.append(reached(f"rbm, {on}: samples/s", rates["lazypipe"]["rate"], 60_000, "{:,.0f}"))
            what = f"rbm, {on}: of the rate of scikit-learn"
            targets.append(reached(what, ratio(rates["lazypipe"], rates["scikit-learn"]), 1.5, "{:.2f}"))
        values = self.lines("rbm", kind="likelihood")
        ours = next((line["value"] for line in values if line["contender"] == "lazypipe"), None)
        theirs = [line["value"] for line in values if line["contender"] == "scikit-learn"]
        if ours is not None and theirs:
            what = f"rbm: pseudo-likelihood, above scikit-learn's best of {len(theirs)} rates ({max(theirs):.1f})"
            targets.append((what, f"{ours:.1f}", ours > max(theirs)))
        return targets

    def _errors(self) -> list[Target]:
        targets: list[Target] = []
        for stage, goal in (("mnist-mlp", 1.8), ("mnist-dbn", 1.4)):
            errors = self.errors(stage)
            if errors:
                mean, most = 100 * statistics.mean(errors), 100 * max(errors)
                text = f"{mean:.2f}%, mean of {len(errors)} seeds (at most {most:.2f}%)"
                targets.append((f"{stage}: test error <= {goal:g}%", text, mean <= goal))
        return targets

    def _gain(self) -> list[Target]:
        """Of pre-training, at the fewest labels."""
        table = self.by_labels()
        if not table:
            return []
        fewest = min(row["n_labels"] for row in table)
        gains = gains_of([row for row in table if row["n_labels"] == fewest])
        mean = statistics.mean(gains)
        text = f"{mean:.1f} points, mean of {len(gains)} seeds (from {min(gains):.1f} to {max(gains):.1f})"
        return [(f"few-labels: pre-training gains >= 2 points at {fewest:,} labels", text, mean >= 2)]

    def _codes(self) -> list[Target]:
        rows = self.lines("codes", kind="codes")
        if not rows:
            return []
        shares = [row["autoencoder"] / row["PCA"] for row in rows]
        text = f"from {min(shares):.2f} to {max(shares):.2f} of PCA's, {len(rows)} numbers of components"
        return [("codes: reconstruction error below that of as many principal components", text, max(shares) < 1)]


def reached(what: str, value: float, goal: float, form: str) -> Target:
    return f"{what} >= {form.format(goal)}", form.format(value), value >= goal


def draw(told: Told, folder: Path) -> None:
    """Rates of perceptrons and of machines, on the most threads; accuracies by labels; errors of codes."""
    from lazypipe.figures import accuracy_by_labels, code_errors
    from lazypipe.figures.canvas import blank

    if table := told.by_labels():
        accuracy_by_labels(table).savefig(folder / "networks_labels.png")
    if rows := told.lines("codes", kind="codes"):
        names = ("n_components", "autoencoder", "PCA")
        code_errors([{name: row[name] for name in names} for row in rows]).savefig(folder / "networks_codes.png")

    panels: list[tuple[str, str]] = [("mlp", "perceptron 784-{}-10"), ("rbm", "Boltzmann machine 784-{}")]
    panels = [(stage, title) for stage, title in panels if told.threads(stage)]
    if not panels:
        return
    figure = blank(5 * len(panels), 3)
    for axes, (stage, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        threads = told.threads(stage)[0]
        rates = told.rates(stage, threads)
        for place, (name, line) in enumerate(rates.items()):
            axes.barh(place, line["rate"], color=BLUE if name.startswith("lazypipe") else GREY)
            axes.text(line["rate"], place, f" {line['rate']:,.0f}", va="center", fontsize=8)
        axes.set_yticks(range(len(rates)), list(rates), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2 * max(line["rate"] for line in rates.values()))
        axes.set_xlabel(f"samples/s, {on_threads(threads)} (longer is better)", fontsize=8)
        axes.set_title(title.format(next(iter(rates.values()))["hidden"]), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "networks.png")
