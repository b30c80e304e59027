"""Columns of convolutions pruned with probabilities, while a network is trained."""
