"""One file a job: its typed config, ``run(config)``, its command line. A new one: a file, and a line here."""

JOBS = {
    "pca": "leading principal components of a matrix wider than memory",
    "covariance": "mean and covariance of all columns of a matrix",
    "convert": "copy a matrix of any known format to .npy, Arrow IPC or Zarr panels, by blocks",
    "generate": "write a matrix of known spectrum, mean and noise, by blocks",
    "plan": "print what pca or covariance would take (plan pca ...), and do no work",
}
