"""Structure below the unit, measured: columns, kernels and blocks of weights."""
