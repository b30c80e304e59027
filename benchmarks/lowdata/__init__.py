"""Accuracy after pruning with a few hundred unlabelled images, by Secateur and by torch-pruning with its repairs."""
