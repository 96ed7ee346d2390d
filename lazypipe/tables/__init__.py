"""Tables that Spark reads, written as matrices: by its tasks, in parallel, no row through the driver."""
