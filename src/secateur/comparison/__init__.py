"""Compare: criteria measured by what networks that are cut by them lose."""
