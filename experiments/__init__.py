"""The paper's experiments: each from a configuration to tables, numbers and figures."""

import rd_elbo.report  # noqa: F401  imports matplotlib, which some settings of users would end
