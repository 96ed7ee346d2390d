"""Networks. The only package that imports torch: where that is missing, its import says what to install."""

from lazypipe.extras import require_packages

require_packages("networks need", "nets", "torch", "safetensors")
