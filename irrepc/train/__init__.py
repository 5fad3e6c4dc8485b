"""Training on labelled frames; importing this package imports neither torch nor ase."""
