"""Which entries of which parameters must be cut together: label tracing, groups, and what a plan costs."""
