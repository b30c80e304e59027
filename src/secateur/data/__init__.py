"""Examples in the forms that users have them, as batches."""
