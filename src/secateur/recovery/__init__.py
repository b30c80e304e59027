"""Repair of cut models from unlabelled examples."""
