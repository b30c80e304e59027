"""Layers that compute with sparse weights faster than dense ones do."""
