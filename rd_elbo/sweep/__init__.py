"""Sweeps: a grid of members, trained chunk by chunk into a run directory."""
