"""One file a job: its typed config, ``run(config)``, its command line. A new one: a file, and a line here."""

JOBS = {
    "pca": "leading principal components of a matrix wider than memory",
    "covariance": "mean and covariance of all columns of a matrix",
    "transform": "scores of a matrix on the components of a pca result, to .zarr or .parquet",
    "sta": "average of a recording around the spikes of each unit, with its spread",
    "recordings": "the job sta for every new recording of a folder, each taken once",
    "linear": "linear regression of one target, with standard errors and R²",
    "sweep": "scores of a classifier at every sample size and strength of regularization, and what they say",
    "mlp": "multilayer perceptron: classes or numbers from rows, on the processor or a GPU",
    "rbm": "restricted Boltzmann machine: features, reconstructions and samples of rows without labels",
    "dbn": "deep belief network: Boltzmann machines layer by layer, then the whole on labels",
    "predict": "what a network of mlp, rbm or dbn says of the rows of a matrix, to .npy",
    "devices": "processor and GPU beside each other: a training step, an epoch",
    "convert": "copy a matrix to .npy, Arrow IPC, Zarr panels, or sparse Parquet, by blocks",
    "generate": "write a matrix of known spectrum, mean and noise, by blocks",
    "log": "send a result to MLflow that was not logged, or not in full",
    "plan": "print what a job would take (plan pca ...), and do no work",
}
