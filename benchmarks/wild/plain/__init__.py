"""Networks that no library ships as one module: own definitions, written from the published architectures."""
