"""The speed of cut networks beside the dense ones."""
