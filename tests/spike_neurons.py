"""Neurons whose filters are known: what tests of averages, filters and covariances have to find."""

import numpy as np


def lagged(x, n_lags):
    """(n_samples - n_lags + 1, n_lags) of one channel: the window that ends with each sample from n_lags - 1 on."""
    return np.lib.stride_tricks.sliding_window_view(x, n_lags)


def coloured(n, seed=0, reach=4):
    """(n,) Gaussian noise of variance 1, correlated over about ``reach`` samples."""
    noise = np.random.default_rng(seed).standard_normal(n + 10 * reach)
    kernel = np.exp(-np.arange(10 * reach) / reach)
    x = np.convolve(noise, kernel, "valid")[:n]
    return x / x.std()


def biphasic(n_lags=20):
    """(n_lags,) of length 1, oldest sample first."""
    t = np.arange(n_lags)[::-1]
    w = np.exp(-(((t - 5) / 2.5) ** 2)) - 0.6 * np.exp(-(((t - 10) / 3) ** 2))
    return w / np.linalg.norm(w)


def quadrature(n_lags=20):
    """(2, n_lags) orthonormal: a Gabor function and the one a quarter of its period on."""
    t = np.arange(n_lags) - n_lags / 2
    pair = np.stack([np.cos(2 * np.pi * t / 8), np.sin(2 * np.pi * t / 8)]) * np.exp(-((t / 4) ** 2))
    return np.linalg.qr(pair.T)[0].T


def fire(drive, rate, seed=0, n_lags=20):
    """Samples of Poisson spikes, ``rate`` a sample on average, for a drive (n_windows,) of exp form or any >= 0."""
    counts = np.random.default_rng(seed + 1).poisson(drive * rate / drive.mean())
    return np.repeat(np.arange(len(drive)) + n_lags - 1, counts)


def linear_neuron(x, w, rate=0.1, seed=0, gain=1.0):
    """Exponential in the filtered stimulus: for white noise of variance 1 its average is ``gain * w`` exactly."""
    return fire(np.exp(gain * lagged(x, len(w)) @ w), rate, seed, len(w))


def energy_neuron(x, pair, rate=0.1, seed=0):
    """The sum of two squared filter outputs, as a complex cell: its average tells nothing."""
    return fire(((lagged(x, pair.shape[1]) @ pair.T) ** 2).sum(axis=1), rate, seed, pair.shape[1])


def cosine(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
