"""The paper's experiments: each from a configuration to tables, numbers and figures."""
