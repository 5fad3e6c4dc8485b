"""Floor 1: exact numbers and the labels of irreps; needs nothing but the standard library."""
