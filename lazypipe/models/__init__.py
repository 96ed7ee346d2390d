"""What people call: one file a model. Each plans, folds through an engine, and returns its answer."""
