"""Label tracing: the entries of parameters that must be removed together, groups of units, and the cost of a plan."""
