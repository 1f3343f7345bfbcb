"""Populations measured beside the tools that people would use in their place."""
