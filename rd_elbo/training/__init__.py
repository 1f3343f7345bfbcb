"""Training: a population of any models on a mesh of devices; no grid, no run directory."""
