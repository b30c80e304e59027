"""The graph of a network's channels, on which LEAN, SPP and the removal of dead kernels are based."""
