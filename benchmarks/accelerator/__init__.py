"""What `prune` does on an accelerator, beside the same on the CPU."""
