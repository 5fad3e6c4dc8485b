"""Floor 2: the language of kernels, exact polynomial equations with loops, gathers and sums."""
