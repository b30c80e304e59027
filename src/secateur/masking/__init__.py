"""The dense program with ablated units: exactly the results of the cut network."""
