"""The tables (Markdown) of networks.py, a section each."""

import statistics
from typing import Any

from spikes_report import show_seconds

from lazypipe.sizes import show_bytes

DBN, DEEP = "pre-trained", "from random weights"
# Additions and multiplications a sample and hidden unit. Of 784-...-10 there and back, but not back to the inputs; of a
# machine up, down and up again, and the gradients of data and model.
PERCEPTRON_FLOPS, MACHINE_FLOPS = 4 * 784 + 6 * 10, 10 * 784
Line = dict[str, Any]
PERCEPTRONS = """
## Perceptron 784-{hidden}-10, gradient descent, batches of {batch}, float32

{rows:,} digits / 255, as float32 in memory; lazypipe's "uint8" keeps the pixels as bytes, and its "streamed" reads the
float32 .npy every epoch with {memory} for all, of which a tenth of the rows. "By hand" has its gradients written out
and measures nothing; scikit-learn's is an epoch of `MLPClassifier`.

| contender | threads | samples/s | of lazypipe's | GFLOP/s | of GEMM | whole call | waiting for rows |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
OPTIMIZERS = """
## Optimizers and precisions of lazypipe

The same network, {rows:,} digits, {threads} threads.

| | samples/s | of gradient_descent |
|---|---:|---:|
"""
MACHINES = """
## Boltzmann machine 784-{hidden}, CD-1, batches of {batch}, float32

{rows:,} digits / 255. scikit-learn's `BernoulliRBM` has persistent chains.

| contender | threads | samples/s | of lazypipe's | GFLOP/s | of GEMM |
|---|---:|---:|---:|---:|---:|
"""
LIKELIHOODS = """
After {epochs} epochs, the mean pseudo-likelihood of {test_rows:,} other digits, all by scikit-learn's `score_samples`:

| contender | setting | nats | seconds |
|---|---|---:|---:|
"""
DIGITS = """
## {title}

{text} The error is that of the last epoch on the {n_test:,} test digits, by which nothing was chosen.

| seed | test error | {columns} | seconds in all |
|---:|---:|{lines}---:|
"""
LABELS = """
## Few labels: notMNIST, 784-{units}-10

![accuracy by number of labels](networks_labels.png)

One stack, pre-trained on all 8,000 letters without their labels ({pretraining}; {pretrained} s); then all layers
trained on so many labelled letters, {n_seeds} seeds that draw them, from that stack, and from random weights (Xavier)
by the same steps; beside them rectified units of the same layers, from He's weights and without momentum (job sweep's
models dbn, deep and mlp; {seconds} s). {epochs} epochs, 1,000 steps at least, batches of {batch}, momentum 0.9,
C {strength:g}. Accuracy is that on the letters for tests after the last epoch, of each at its better learning_rate
({rates}), chosen for each number of labels by the mean of those very accuracies. The gain is over the second column.

| labels | pre-trained | from random weights | rectified units | gain, points | training accuracies |
|---:|---:|---:|---:|---:|---|
"""
CODES = """
## Codes: an autoencoder beside PCA

![reconstruction error by number of components](networks_codes.png)

784-{units}-codes and back, {n_train:,} digits / 255; mean squared error of an entry of {n_test:,} other digits. Each
machine: {pretraining}; all layers, by cross-entropy: {fine_tuning}. The layers before the codes were pre-trained once
({below} s); seconds are of the codes' machine and of all layers. PCA took {pca} s.

| components | autoencoder | PCA | of PCA's | seconds |
|---:|---:|---:|---:|---:|
"""
PROCESSES = """
## One process and two

The perceptron, {rows:,} digits; two processes share each batch and sum their gradients over this machine's loopback.
The whole call starts the processes too.

| | batch | samples/s | of one process on two threads | whole call |
|---|---:|---:|---:|---:|
"""
GPU = """
## On a GPU

{gpu}; the perceptron, {rows:,} digits.

| rows | products | batch | samples/s | seconds an epoch | of resident | waiting for rows |
|---|---|---:|---:|---:|---:|---:|
"""


class Told:
    """A report, and what its tables say."""

    def __init__(self, report: dict[str, Any]):
        self.report, self.asked = report, report["identity"]

    def lines(self, stage: str, **having: Any) -> list[Line]:
        lines = self.report["stages"].get(stage, {}).get("lines", [])
        return [line for line in lines if having.items() <= line.items()]

    def only(self, stage: str, key: str) -> Any:
        """The first value of that name that a stage told; None where it told none."""
        return next((line[key] for line in self.lines(stage) if key in line), None)

    def rates(self, stage: str, threads: int) -> dict[str, Line]:
        found = self.lines(stage, kind="contender", threads=threads)
        return {line["contender"]: line for line in found}

    def threads(self, stage: str) -> list[int]:
        """The most first."""
        return sorted({line["threads"] for line in self.lines(stage, kind="contender")}, reverse=True)

    def errors(self, stage: str) -> list[float]:
        return [line["error"] for line in self.lines(stage) if "error" in line]

    def by_labels(self) -> list[Line]:
        """Accuracies by number of labels and seed, each model at its best rate for that number, mean over seeds."""
        cells, models = self.only("few-labels", "cells") or [], self.only("few-labels", "models") or {}
        table: dict[tuple[int, int], Line] = {}
        for model, name in models.items():
            for size in sorted({cell["size"] for cell in cells}):
                here = [cell for cell in cells if cell["model"] == model and cell["size"] == size]
                best = best_rate(here)
                for cell in here:
                    if cell["rate"] == best:
                        row = table.setdefault((size, cell["seed"]), {"n_labels": size, "seed": cell["seed"]})
                        row[name] = cell["validation_accuracy"]
        return list(table.values())

    def perceptrons(self) -> str:
        lines = self.lines("mlp", kind="contender")
        if not lines:
            return ""
        first, memory = lines[0], next((line["memory"] for line in lines if "memory" in line), 0)
        text = PERCEPTRONS.format(
            hidden=f"{first['hidden']:,}", batch=first["batch"], rows=first["rows"], memory=show_bytes(memory)
        )
        flops = PERCEPTRON_FLOPS * first["hidden"]
        for threads in self.threads("mlp"):
            rates = self.rates("mlp", threads)
            for name, line in rates.items():
                call = f"{line['call']:,.0f}" if "call" in line else ""
                waiting = f"{line['waiting']:.1%}" if "waiting" in line else ""
                text += line_of([*self._rate(name, line, rates["lazypipe"], flops), call, waiting])
        return text

    def _rate(self, name: str, line: Line, ours: Line, flops: int) -> list[Any]:
        gflops = line["rate"] * flops / 1e9
        return [
            bold(name), line["threads"], f"{line['rate']:,.0f}", f"{ratio(line, ours):.2f}", f"{gflops:.0f}",
            f"{gflops / line['gemm']:.0%}",
        ]  # fmt: skip

    def optimizers(self) -> str:
        lines = self.lines("mlp", kind="optimizer")
        if not lines:
            return ""
        text = OPTIMIZERS.format(rows=lines[0]["rows"], threads=lines[0]["threads"])
        for line in lines:
            text += line_of([line["contender"], f"{line['rate']:,.0f}", f"{ratio(line, lines[0]):.2f}"])
        return text

    def machines(self) -> str:
        lines, values = self.lines("rbm", kind="contender"), self.lines("rbm", kind="likelihood")
        text = ""
        if lines:
            text += MACHINES.format(hidden=lines[0]["hidden"], batch=lines[0]["batch"], rows=lines[0]["rows"])
        for threads in self.threads("rbm"):
            rates = self.rates("rbm", threads)
            for name, line in rates.items():
                text += line_of(self._rate(name, line, rates["lazypipe"], MACHINE_FLOPS * line["hidden"]))
        if values:
            text += LIKELIHOODS.format(epochs=values[0]["epochs"], test_rows=values[0]["test_rows"])
        for line in values:
            cells = [line["setting"], f"{line['value']:.1f}", show_seconds(line["seconds"])]
            text += line_of([bold(line["contender"]), *cells])
        return text

    def digits(self) -> str:
        text = ""
        if self.errors("mnist-mlp"):
            told = self.lines("mnist-mlp")
            settings = setting(self.only("mnist-mlp", "settings"))
            text += DIGITS.format(
                title="MNIST by a perceptron", n_test=self.only("mnist-mlp", "n_test"), columns="samples/s",
                text=f"784-{self.only('mnist-mlp', 'hidden'):,}-10, {self.only('mnist-mlp', 'epochs')} epochs of all "
                f"{self.only('mnist-mlp', 'n_train'):,} digits, nothing added to them: {settings}.",
                lines="---:|",
            )  # fmt: skip
            for line in (line for line in told if "error" in line):
                rate = f"{line['rate']:,.0f}"
                text += line_of([line["seed"], f"{line['error']:.2%}", rate, show_seconds(line["seconds"])])
        return text

    def belief(self) -> str:
        """The table of mnist-dbn."""
        if not self.errors("mnist-dbn"):
            return ""
        before, after = (setting(self.only("mnist-dbn", name)) for name in ("pretraining", "fine_tuning"))
        units = "-".join(map(str, self.only("mnist-dbn", "layers")))
        text = DIGITS.format(
            title="MNIST by a deep belief network", n_test=self.only("mnist-dbn", "n_test"), lines="---:|",
            columns="seconds of fine-tuning", text=f"784-{units}-10 on {self.only('mnist-dbn', 'n_train'):,} digits, "
            f"nothing added to them. Each machine: {before}; all layers: {after}.",
        )  # fmt: skip
        for line in self.lines("mnist-dbn"):
            if "error" in line:
                cells = [f"{line['error']:.2%}", show_seconds(line["tuning"]), show_seconds(line["seconds"])]
                text += line_of([line["seed"], *cells])
        return text + "\nPublished for deep belief networks on Spark: 1.70%.\n"

    def labels(self) -> str:
        table = self.by_labels()
        if not table:
            return ""
        told = {name: self.only("few-labels", name) for name in ("layers", "epochs", "batch", "strength", "models")}
        cells, names = self.only("few-labels", "cells"), list(told["models"].values())
        text = LABELS.format(
            units="-".join(map(str, told["layers"])), pretraining=setting(self.only("few-labels", "pretraining")),
            rates=" or ".join(str(rate) for rate in sorted({cell["rate"] for cell in cells})), epochs=told["epochs"],
            batch=told["batch"], strength=told["strength"], seconds=show_seconds(self.only("few-labels", "seconds")),
            pretrained=show_seconds(self.only("few-labels", "pretrained")), n_seeds=len({row["seed"] for row in table}),
        )  # fmt: skip
        for size in sorted({row["n_labels"] for row in table}):
            here = [row for row in table if row["n_labels"] == size]
            gains = gains_of(here)
            shown = [f"{statistics.mean(row[name] for row in here):.2%}" for name in names]
            gain = f"{statistics.mean(gains):.1f} (from {min(gains):.1f} to {max(gains):.1f})"
            learnt = []
            for model in told["models"]:
                of_model = [cell for cell in cells if cell["model"] == model and cell["size"] == size]
                best = best_rate(of_model)
                learnt.append(statistics.mean(cell["train_accuracy"] for cell in of_model if cell["rate"] == best))
            text += line_of([f"{size:,}", *shown, gain, ", ".join(f"{value:.1%}" for value in learnt)])
        return text

    def codes(self) -> str:
        rows = self.lines("codes", kind="codes")
        if not rows:
            return ""
        before, after = (setting(self.only("codes", name)) for name in ("pretraining", "fine_tuning"))
        text = CODES.format(
            units="-".join(map(str, self.only("codes", "layers"))), n_train=self.only("codes", "n_train"),
            n_test=self.only("codes", "n_test"), pretraining=before, fine_tuning=after,
            below=show_seconds(self.lines("codes", kind="layers before the codes")[0]["seconds"]),
            pca=show_seconds(self.lines("codes", kind="PCA")[0]["seconds"]),
        )  # fmt: skip
        for row in rows:
            errors = [f"{row[name]:.4f}" for name in ("autoencoder", "PCA")]
            share = f"{row['autoencoder'] / row['PCA']:.2f}"
            text += line_of([row["n_components"], *errors, share, show_seconds(row["seconds"])])
        return text

    def processes(self) -> str:
        lines = self.lines("processes", kind="processes")
        if not lines:
            return ""
        text = PROCESSES.format(rows=lines[0]["rows"])
        for line in lines:
            base = self.lines("processes", kind="processes", processes=1, threads=2, batch=line["batch"])[0]
            name = line["contender"].split(",")[0]
            cells = [name, f"{line['batch']:,}", f"{line['rate']:,.0f}", f"{ratio(line, base):.2f}"]
            text += line_of([*cells, f"{line['call']:,.0f}"])
        return text

    def gpu(self) -> str:
        skipped, lines = self.only("gpu", "skipped"), self.lines("gpu", kind="gpu")
        if skipped:
            return f"\n## On a GPU\n\nNot run: {skipped}.\n"
        text = GPU.format(gpu=lines[0]["gpu"], rows=lines[0]["rows"]) if lines else ""
        for line in lines:
            same = {name: line[name] for name in ("batch", "precision")}
            [base] = self.lines("gpu", kind="gpu", contender="resident", **same)
            cells = [line["contender"], line["precision"], f"{line['batch']:,}", f"{line['rate']:,.0f}"]
            text += line_of(
                [*cells, f"{line['epoch_seconds']:.3f}", f"{ratio(line, base):.2f}", f"{line['waiting']:.1%}"]
            )
        return text

    def stages(self) -> str:
        """What each stage took, and what the machine did besides."""
        text = "\n## Stages\n\n| stage | seconds | resident at the peak | load at the start, at the end |\n"
        text += "|---|---:|---:|---|\n"
        for name, stage in self.report["stages"].items():
            begun = (self.only(name, "torch") or "").partition("load ")[2].split(" ")[0]
            resident, load = self.only(name, "resident"), self.only(name, "load")
            memory = "" if resident is None else show_bytes(resident)
            text += line_of([name, f"{stage['took']:.0f}", memory, "" if load is None else f"{begun}, {load:.1f}"])
        failed = [f"{name}: {stage['failure']}" for name, stage in self.report["stages"].items() if "failure" in stage]
        return text + "".join(f"\nFailed: {line}.\n" for line in failed)


def ratio(line: Line, other: Line) -> float:
    """Median of the ratios of both rates in each round."""
    pairs = zip(line["rates"], other["rates"], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def setting(options: Line) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def best_rate(cells: list[Line]) -> float:
    """The learning rate of the highest mean accuracy over seeds."""
    found: dict[float, list[float]] = {}
    for cell in cells:
        found.setdefault(cell["rate"], []).append(cell["validation_accuracy"])
    return max(found, key=lambda rate: statistics.mean(found[rate]))


def gains_of(rows: list[Line]) -> list[float]:
    """Of pre-training, in points."""
    return [100 * (row[DBN] - row[DEEP]) for row in rows]


def on_threads(n: int) -> str:
    return "one thread" if n == 1 else f"{n} threads"


def bold(name: str) -> str:
    return f"**{name}**" if name.startswith("lazypipe") else name


def line_of(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"
