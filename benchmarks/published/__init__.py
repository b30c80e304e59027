"""Published networks on real data, beside other methods."""
