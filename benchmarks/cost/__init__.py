"""The cost of `prune`: operations and processor time, as multiples of the dense network's forward pass."""
