"""The loops that people write by hand over tensors in memory: what lazypipe's training is beside.

Each function gives another one that trains for an epoch and tells its samples a second. They use as many threads as
torch is set to.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

Epoch = Callable[[], float]
RATE = 0.1  # of the perceptrons


def perceptron_autograd(rows: np.ndarray, labels: np.ndarray, hidden: int, batch: int) -> Epoch:
    """nn.Sequential, cross-entropy, torch.optim.SGD, and rows indexed by a permutation, as in every tutorial."""
    x, y, n = torch.from_numpy(rows), torch.from_numpy(labels), len(rows)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, int(y.max()) + 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def epoch() -> float:
        begun = time.perf_counter()
        order = torch.randperm(n)
        for start in range(0, n, batch):
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        return n / (time.perf_counter() - begun)

    return epoch


def perceptron_by_hand(rows: np.ndarray, labels: np.ndarray, hidden: int, batch: int) -> Epoch:
    """The same with gradients written out, each step's products added to the weights in place; no loss is measured."""
    x, y, n = torch.from_numpy(rows), torch.from_numpy(labels), len(rows)
    n_classes, n_inputs, places = int(y.max()) + 1, x.shape[1], torch.arange(batch)
    torch.manual_seed(0)
    w1, b1 = torch.randn(hidden, n_inputs) * (2 / n_inputs) ** 0.5, torch.zeros(hidden)
    w2, b2 = torch.randn(hidden, n_classes) * (1 / hidden) ** 0.5, torch.zeros(n_classes)

    @torch.no_grad()
    def epoch() -> float:
        begun = time.perf_counter()
        order = torch.randperm(n)
        for start in range(0, n, batch):
            chosen = order[start : start + batch]
            entering = x.index_select(0, chosen)
            active = functional.linear(entering, w1, b1).relu_()
            delta = torch.softmax(torch.addmm(b2, active, w2), 1)
            delta[places[: len(chosen)], y[chosen]] -= 1
            behind = delta @ w2.t()
            behind.mul_(active > 0)
            alpha = -RATE / len(chosen)
            w2.addmm_(active.t(), delta, alpha=alpha)
            b2.add_(delta.sum(0), alpha=alpha)
            w1.addmm_(behind.t(), entering, alpha=alpha)
            b1.add_(behind.sum(0), alpha=alpha)
        return n / (time.perf_counter() - begun)

    return epoch


class Machine:
    """A restricted Boltzmann machine by contrastive divergence (CD-1), as short as it can be written."""

    def __init__(self, rows: np.ndarray, n_hidden: int, batch: int, rate: float = 0.05, penalty: float = 1e-4):
        self.x, self.batch, self.rate, self.penalty = torch.from_numpy(rows), batch, rate, penalty
        torch.manual_seed(0)
        self.weights = torch.randn(rows.shape[1], n_hidden) * 0.01
        self.visible = torch.logit(self.x.mean(0), eps=0.01)
        self.hidden = torch.zeros(n_hidden)
        self.velocity = torch.zeros_like(self.weights)
        self.epochs = 0

    @torch.no_grad()
    def epoch(self) -> float:
        begun = time.perf_counter()
        n, momentum = len(self.x), 0.5 if self.epochs < 3 else 0.9
        order = torch.randperm(n)
        for start in range(0, n - self.batch + 1, self.batch):
            data = self.x[order[start : start + self.batch]]
            rate = self.rate / self.batch
            of_data = torch.addmm(self.hidden, data, self.weights).sigmoid_()
            sampled = (torch.rand_like(of_data) < of_data).float()
            model = torch.addmm(self.visible, sampled, self.weights.t()).sigmoid_()
            of_model = torch.addmm(self.hidden, model, self.weights).sigmoid_()
            gradient = data.t() @ of_data
            gradient.addmm_(model.t(), of_model, alpha=-1)
            self.velocity.mul_(momentum).add_(gradient, alpha=rate)
            self.velocity.add_(self.weights, alpha=-self.rate * self.penalty)
            self.weights += self.velocity
            self.visible.add_((data - model).sum(0), alpha=rate)
            self.hidden.add_((of_data - of_model).sum(0), alpha=rate)
        self.epochs += 1
        return n // self.batch * self.batch / (time.perf_counter() - begun)
