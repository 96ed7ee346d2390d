"""Tables that Spark reads, written as matrices: by its tasks, in parallel, no row through the driver."""

from lazypipe.extras import require_packages

require_packages("tables need", "spark", "pyspark")
