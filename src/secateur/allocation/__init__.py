"""How many units go, and from which groups, for a budget."""
