"""Floor 3: exact harmonics, couplings and rotations, the kernels that compute them, and their proofs."""
