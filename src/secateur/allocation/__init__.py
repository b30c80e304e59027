"""Allocation: the number of units that each group keeps, for a budget."""
