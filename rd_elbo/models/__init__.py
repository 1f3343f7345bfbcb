"""Encoders, decoders and priors, and the models they make."""
