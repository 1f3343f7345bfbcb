"""Figures, galleries and comparisons, made from tables."""
