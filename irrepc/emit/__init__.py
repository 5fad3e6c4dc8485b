"""Floor 4: from kernels to text, by one printer and one template for each backend."""
