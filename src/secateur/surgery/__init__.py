"""Cut models: the recipe, the cut, its verification, and files."""
