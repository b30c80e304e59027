"""The program of a model: exported, made functional, and run, whole or in part."""
