"""Accuracy after pruning with a few hundred unlabelled images: ours, and peers, each with its repairs."""
