"""The results and the times of `prune` on an accelerator, compared with those on the CPU."""
