"""Windows around spikes as a dozen lines of NumPy cut them: slow, whole in memory, and easy to believe."""

import numpy as np


def windows_of(x, spikes, window, stretches=None, exclude=(), edges="drop", weights="count"):
    """(n, lags, channels) float64 windows of one unit's ``spikes``, NaN where nothing was recorded.

    The clock is laid out whole: each sample that was not recorded, or is excluded, is NaN, and belongs to no piece.
    """
    stretches = stretches or [(0, len(x))]
    end = max(stop for _, stop in stretches)
    clock, piece = np.full((end, x.shape[1]), np.nan), np.full(end, -1)
    row = 0
    for i, (start, stop) in enumerate(stretches):
        clock[start:stop], piece[start:stop] = x[row : row + stop - start], i
        row += stop - start
    for k, (start, stop) in enumerate(exclude):
        piece[max(start, 0) : stop] = -1
        piece[stop:] += 1000 * (k + 1) * (piece[stop:] >= 0)  # what comes after is another piece
    found = []
    for t in np.unique(spikes) if weights == "binary" else spikes:
        if not 0 <= t < end or piece[t] < 0:
            continue
        cut = np.full((window[1] - window[0], x.shape[1]), np.nan)
        there = np.zeros(len(cut), bool)
        for j, s in enumerate(range(t + window[0], t + window[1])):
            if 0 <= s < end and piece[s] == piece[t]:
                cut[j], there[j] = clock[s], True
        if there.all() or (edges == "nan" and there.any()):
            found.append(cut)
    return np.array(found).reshape(-1, window[1] - window[0], x.shape[1])


def moments_of(windows, ddof=1):
    """Number at each lag, mean and standard deviation, of windows that may hold NaN."""
    n = (~np.isnan(windows[:, :, 0])).sum(axis=0)
    with np.errstate(all="ignore"):
        mean = np.nansum(windows, axis=0) / n[:, None]
        squares = np.nansum((windows - mean) ** 2, axis=0)
        return n, mean, np.sqrt(squares / np.where(n > ddof, n - ddof, np.nan)[:, None])
