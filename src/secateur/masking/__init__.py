"""The dense program with units ablated, exactly as if they had been cut."""
