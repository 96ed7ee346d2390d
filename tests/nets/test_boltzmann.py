"""Restricted Boltzmann machines against machines of 4 x 3 units whose states are all counted, in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, logsumexp

from lazypipe.errors import ConfigError, DataError
from lazypipe.nets.boltzmann import Boltzmann, boltzmann_nbytes
from lazypipe.nets.energy import EnergyModel
from lazypipe.nets.sampling import Sampler

N_VISIBLE, N_HIDDEN = 4, 3
ALL_VISIBLE = np.array(list(itertools.product((0.0, 1.0), repeat=N_VISIBLE)))  # (16, 4)
ALL_HIDDEN = np.array(list(itertools.product((0.0, 1.0), repeat=N_HIDDEN)))  # (8, 3)
KINDS = ("bernoulli", "gaussian")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(machine, seed=1, scale=0.8):
    """A machine with parameters of some size, and these as W, c, b in float64."""
    machine.parameters.vector.normal_(0, scale, generator=generator(seed))
    values = machine.parameters.values
    return machine, *(values[name].double().numpy() for name in ("weight", "hidden_bias", "visible_bias"))


def some_rows(kind, n=6, seed=2):
    random = np.random.default_rng(seed)
    return random.integers(0, 2, (n, N_VISIBLE)) * 1.0 if kind == "bernoulli" else random.normal(size=(n, N_VISIBLE))


def single(values):
    return torch.tensor(values, dtype=torch.float32)


def energies(kind, visible, hidden, w, c, b):
    """E of every pair, (rows of visible, rows of hidden)."""
    alone = -visible @ b if kind == "bernoulli" else ((visible - b) ** 2).sum(1) / 2
    return alone[:, None] - hidden @ c - visible @ w.T @ hidden.T


def binary_probability(states, probabilities):
    """Of each binary state (m, units), in each row of probabilities (n, units): (n, m)."""
    return np.prod(np.where(states[None] == 1, probabilities[:, None], 1 - probabilities[:, None]), axis=2)


def gradient_of(statistics_w, statistics_c, statistics_b):
    return np.concatenate([statistics_w.ravel(), statistics_c, statistics_b])


def statistics(visible, w, c):
    """p(h | v) vᵀ, p(h | v) and v of each row, (n, n_parameters)."""
    hidden = expit(visible @ w.T + c)
    outer = hidden[:, :, None] * visible[:, None, :]
    return np.concatenate([outer.reshape(len(visible), -1), hidden, visible], axis=1)


def assert_near(estimate, moments, n):
    """A mean of n draws lies within 4.5 standard errors of the mean, for (mean, mean square) of one draw."""
    mean, square = moments
    error = np.sqrt(np.maximum(square - mean**2, 0) / n)
    np.testing.assert_array_less(np.abs(estimate - mean), 4.5 * error + 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_energies_and_conditionals_are_those_of_all_states(kind):
    machine, w, c, b = filled(EnergyModel(N_VISIBLE, N_HIDDEN, kind))
    rows = some_rows(kind, n=8)
    energy = energies(kind, rows, ALL_HIDDEN, w, c, b)
    np.testing.assert_allclose(machine.energy(single(rows), single(ALL_HIDDEN)), np.diag(energy), rtol=1e-5, atol=1e-5)
    free = -logsumexp(-energy, axis=1)
    np.testing.assert_allclose(machine.free_energy(single(rows)), free, rtol=1e-5, atol=1e-5)
    hidden = np.exp(-energy + free[:, None]) @ ALL_HIDDEN
    np.testing.assert_allclose(machine.hidden(single(rows)), hidden, rtol=1e-5)
    means = machine.visible(single(ALL_HIDDEN)).numpy()
    if kind == "bernoulli":
        weight = np.exp(-energies(kind, ALL_VISIBLE, ALL_HIDDEN, w, c, b))
        np.testing.assert_allclose(means, (weight / weight.sum(0)).T @ ALL_VISIBLE, rtol=1e-5)
    else:  # around its mean the energy is that of N(mean, 1)
        least = np.diag(energies(kind, means, ALL_HIDDEN, w, c, b))
        np.testing.assert_allclose(np.diag(energy) - least, ((rows - means) ** 2).sum(1) / 2, rtol=1e-5)


def test_pseudo_likelihood_is_that_of_all_states_and_of_scikit_learn():
    machine, w, c, b = filled(EnergyModel(N_VISIBLE, N_HIDDEN))
    rows = some_rows("bernoulli", n=32)
    units = np.random.RandomState(5).randint(0, N_VISIBLE, len(rows))
    found = machine.pseudo_likelihood(single(rows), torch.from_numpy(units))

    flipped = rows.copy()
    flipped[np.arange(len(rows)), units] = 1 - flipped[np.arange(len(rows)), units]
    log_p, log_q = (logsumexp(-energies("bernoulli", v, ALL_HIDDEN, w, c, b), axis=1) for v in (rows, flipped))
    np.testing.assert_allclose(found, N_VISIBLE * log_expit(log_p - log_q), rtol=1e-4)

    theirs = pytest.importorskip("sklearn.neural_network").BernoulliRBM(N_HIDDEN, random_state=5)
    theirs.components_, theirs.intercept_hidden_, theirs.intercept_visible_ = w, c, b
    np.testing.assert_allclose(found, theirs.score_samples(rows), rtol=1e-4)


def contrastive_moments(kind, row, k, w, c, b):
    """Mean and mean square of data less model, for a row: the sum over all chains, by their probabilities."""

    def down(hidden):
        return expit(hidden @ w + b) if kind == "bernoulli" else hidden @ w + b

    data = statistics(row[None], w, c)
    weight = binary_probability(ALL_HIDDEN, expit(row[None] @ w.T + c))[0]  # of the 8 states of h that end a chain
    falls, rises = binary_probability(ALL_VISIBLE, expit(ALL_HIDDEN @ w + b)), expit(ALL_VISIBLE @ w.T + c)
    for _ in range(k - 1):
        weight = weight @ falls @ binary_probability(ALL_HIDDEN, rises)
    outcomes = data - statistics(down(ALL_HIDDEN), w, c)
    return weight @ outcomes, weight @ outcomes**2


@pytest.mark.parametrize(
    ("kind", "k", "precision"),
    [
        ("bernoulli", 1, "float32"),
        ("bernoulli", 3, "float32"),
        ("gaussian", 1, "float32"),
        ("bernoulli", 1, "bfloat16"),
    ],
)
def test_contrastive_divergence_is_the_mean_over_all_chains(kind, k, precision):
    machine = Boltzmann(N_VISIBLE, N_HIDDEN, generator(), visible=kind, k=k, precision=precision)
    machine, w, c, b = filled(machine)
    rows, n = some_rows(kind, n=3), 20_000
    moments = [contrastive_moments(kind, row, k, w, c, b) for row in rows]
    for row, (mean, square) in zip(rows, moments, strict=True):
        machine.learn(single(row).repeat(n, 1), None, n, True)
        found = -machine.parameters.gradient.double().numpy()
        if precision == "bfloat16":
            np.testing.assert_allclose(found, mean, atol=0.02)
        else:
            assert_near(found, (mean, square), n)


@pytest.mark.parametrize("kind", KINDS)
def test_chains_at_equilibrium_give_the_gradient_of_the_likelihood(kind):
    n = 40_000
    machine = Boltzmann(N_VISIBLE, N_HIDDEN, generator(), visible=kind, persistent=True, n_chains=n)
    machine, w, c, b = filled(machine, scale=0.5)
    # p(h), v summed or integrated out
    drive = ALL_HIDDEN @ w + b
    log_h = ALL_HIDDEN @ c + (np.logaddexp(0, drive) if kind == "bernoulli" else (drive**2 - b**2) / 2).sum(1)
    p_h = np.exp(log_h - logsumexp(log_h))
    means = expit(drive) if kind == "bernoulli" else drive
    model = gradient_of((p_h[:, None] * ALL_HIDDEN).T @ means, p_h @ ALL_HIDDEN, p_h @ means)

    row = some_rows(kind, n=1)
    start = np.random.default_rng(0).choice(len(ALL_HIDDEN), n, p=p_h)
    machine.chains.copy_(single(ALL_HIDDEN[start]))
    machine.learn(single(row).repeat(n, 1), None, n, True)
    gradient = model - statistics(row, w, c)[0]  # of -log p(v)
    # Statistics of both kinds here spread by less than 2.
    np.testing.assert_allclose(machine.parameters.gradient, gradient, atol=4.5 * 2 / np.sqrt(n))
    after = binary_counts(machine.chains)
    assert chi_square(after, p_h) < 35  # 7 degrees of freedom: the chains are still at equilibrium


def binary_counts(states):
    """How often each binary state is there, in the order of ALL_HIDDEN or ALL_VISIBLE."""
    states = states.double().numpy()
    return np.bincount((states @ 2.0 ** np.arange(states.shape[1])[::-1]).astype(int), minlength=2 ** states.shape[1])


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return ((counts - expected) ** 2 / expected).sum()


def test_gibbs_sampling_comes_to_the_distribution_of_the_model():
    machine, w, c, b = filled(EnergyModel(N_VISIBLE, N_HIDDEN))
    log_v = logsumexp(-energies("bernoulli", ALL_VISIBLE, ALL_HIDDEN, w, c, b), axis=1)
    p_v = np.exp(log_v - logsumexp(log_v))
    visible, hidden = machine.gibbs(torch.zeros(20_000, N_VISIBLE), 25, generator())
    assert hidden.shape == (20_000, N_HIDDEN)
    assert chi_square(binary_counts(visible), p_v) < 45  # 15 degrees of freedom: passed once in 10,000
    assert chi_square(binary_counts(machine.sample(20_000, 25, generator(1), means=False)), p_v) < 45


def test_gaussian_units_are_sampled_around_their_means():
    machine, w, _, b = filled(EnergyModel(N_VISIBLE, N_HIDDEN, "gaussian"))
    visible, hidden = machine.gibbs(torch.zeros(20_000, N_VISIBLE), 1, generator())
    noise = visible.double().numpy() - hidden.double().numpy() @ w - b
    np.testing.assert_allclose(np.cov(noise.T), np.eye(N_VISIBLE), atol=0.05)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.03)


def test_a_sampler_keeps_to_its_probabilities():
    probabilities = torch.tensor([0.0, 2.0**-18, 1e-3, 0.25, 0.999, 1.0]).repeat(100_000, 1)
    means = Sampler(generator()).binary(probabilities, out=torch.empty_like(probabilities)).mean(0)
    assert means[[0, 1, 5]].tolist() == [0, 0, 1]
    np.testing.assert_allclose(means[2:5], [1e-3, 0.25, 0.999], atol=5 * np.sqrt(0.25 / 100_000))
    np.testing.assert_allclose(means[2], 1e-3, rtol=0.5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_persistent_chains_go_on_where_they_were(kind, precision):
    def machine(seed):
        made = Boltzmann(
            N_VISIBLE, N_HIDDEN, generator(seed), visible=kind, k=2, persistent=True, n_chains=8, precision=precision
        )
        return filled(made)[0]

    def steps(learner, n):
        for i in range(n):
            learner.learn(rows[i % 2 * 3 :], None, 8, True)  # every other batch is shorter
            learner.parameters.vector.sub_(learner.parameters.gradient, alpha=0.1)

    rows = single(some_rows(kind, n=8))
    whole, resumed = machine(0), machine(9)
    steps(whole, 4)
    resumed.parameters.vector.copy_(whole.parameters.vector)
    for name, tensor in resumed.tensors().items():
        tensor.copy_(whole.tensors()[name])
    resumed.random.set_state(whole.random.get_state())
    steps(whole, 3)
    steps(resumed, 3)
    assert torch.equal(whole.parameters.vector, resumed.parameters.vector)
    assert torch.equal(whole.chains, resumed.chains)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_add_up(kind):
    whole, parts = (filled(Boltzmann(N_VISIBLE, N_HIDDEN, generator(), visible=kind))[0] for _ in range(2))
    rows = single(some_rows(kind, n=12))
    parts.parameters.gradient.fill_(torch.nan)
    sums = whole.learn(rows, None, 12, True)
    # 4 and 8 rows of 3 units take the same random numbers, one after the other
    found = parts.learn(rows[:4], None, 12, True) + parts.learn(rows[4:], None, 12, False)
    torch.testing.assert_close(parts.parameters.gradient, whole.parameters.gradient)
    torch.testing.assert_close(found, sums)


def test_parts_of_a_batch_have_chains_of_their_own():
    machine, *_ = filled(Boltzmann(N_VISIBLE, 64, generator(), persistent=True, n_chains=8), scale=0.01)
    rows, before = single(some_rows("bernoulli", n=8)), machine.chains.clone()
    machine.learn(rows[:3], None, 8, True)
    moved = (machine.chains != before).any(1).tolist()
    assert moved == [True] * 3 + [False] * 5
    machine.learn(rows[3:], None, 8, False)
    assert (machine.chains != before).any(1).all()
    with pytest.raises(DataError, match="only 8"):
        machine.learn(rows[:1], None, 9, False)


@pytest.mark.parametrize("kind", KINDS)
def test_judgements_are_those_of_the_formulas(kind):
    machine, w, c, b = filled(Boltzmann(N_VISIBLE, N_HIDDEN, generator(), visible=kind))
    rows = some_rows(kind, n=50)
    before = machine.random.get_state()
    found = dict(zip(machine.judgements, machine.judge(single(rows), None).tolist(), strict=True))
    again = dict(zip(machine.judgements, machine.judge(single(rows), None).tolist(), strict=True))
    assert torch.equal(machine.random.get_state(), before)
    drive = expit(rows @ w.T + c) @ w + b
    error = (rows - (expit(drive) if kind == "bernoulli" else drive)) ** 2
    assert found["reconstruction_error"] == pytest.approx(error.mean(1).sum(), rel=1e-5)
    free = -logsumexp(-energies(kind, rows, ALL_HIDDEN, w, c, b), axis=1)
    assert found["free_energy"] == pytest.approx(free.sum(), rel=1e-5)
    assert ("pseudo_likelihood" in found) == (kind == "bernoulli")
    if kind == "bernoulli":
        assert again["pseudo_likelihood"] != found["pseudo_likelihood"]  # other units, so that parts differ
        machine.learn(single(rows), None, 50, True)
        assert machine.judge(single(rows), None)[1].item() == found["pseudo_likelihood"]  # the same again later


def test_initial_biases_give_the_mean():
    for kind, mean, wanted in (
        ("bernoulli", [0.0, 0.3, 0.5, 1.0], [0.01, 0.3, 0.5, 0.99]),
        ("gaussian", *[[0, -2, 1, 9]] * 2),
    ):
        machine = EnergyModel(N_VISIBLE, 5000, kind)
        machine.initialise(single(mean), generator())
        np.testing.assert_allclose(machine.visible(torch.zeros(1, 5000))[0], wanted, rtol=1e-5)
        assert machine.parameters.values["weight"].std().item() == pytest.approx(0.01, rel=0.02)
        assert not machine.parameters.values["hidden_bias"].any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_plan_holds_what_is_kept(precision):
    machine = Boltzmann(40, 30, generator(), k=2, persistent=True, n_chains=64, precision=precision)
    for n in (10, 64, 7):
        machine.learn(torch.rand(n, 40), None, n, True)
    kept = [*machine._memory.values(), machine.chains, machine._sampler._numbers, machine._sampler._bits]
    kept += [machine._rounded] if machine._rounded is not None else []
    most = boltzmann_nbytes(40, 30, 64, machine.dtype.itemsize) + machine.chains.nbytes
    assert sum(tensor.nbytes for tensor in kept) <= most
    machine.release()
    assert machine.learn(torch.rand(64, 40), None, 64, True).shape == (1,)


def test_arguments_without_sense_are_refused():
    for arguments, told in (
        ({"visible": "poisson"}, "visible: 'poisson'"),
        ({"k": 0}, "k: 0"),
        ({"persistent": True}, "n_chains"),
        ({"precision": "int8"}, "precision: 'int8'"),
    ):
        with pytest.raises(ConfigError, match=told):
            Boltzmann(N_VISIBLE, N_HIDDEN, generator(), **arguments)
