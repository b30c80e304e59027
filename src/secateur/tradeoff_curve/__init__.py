"""Trade-off curves: what is lost against what is saved, at several budgets."""
