"""The graph of a network's channels, on which LEAN and SPP stand."""
