"""The paper's experiments, one module each: from a configuration to tables, numbers beside the paper's, and figures."""
