"""What a neuron saw before it fired: averages, their significance, covariances and filters.

``average``, ``significance``, ``covariance`` and ``whitened`` are what people call; ``question`` checks what they
ask, ``result`` and ``record`` say what was found. An average is cut into epochs and tiles by ``planning``, answered
by ``job`` and written by ``store``. The others look at chosen channels of a ``stimulus``: ``passes`` plans their
passes, ``prior`` is the pass over all windows, ``shuffling`` the test by shifted spikes, ``spectra`` and
``step_down`` the test of eigenvalues.
"""
