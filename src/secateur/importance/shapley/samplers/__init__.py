"""Estimators of the Shapley value: the coalitions that they draw, and the shares that they make of them."""
