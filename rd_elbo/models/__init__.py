"""Encoders, decoders and marginals, and the models they make."""
