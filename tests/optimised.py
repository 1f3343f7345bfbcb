"""The environment of processes that compile as for users; tests' own do not, see conftest."""

# Convolutions that are not optimised take seconds a step.
OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
