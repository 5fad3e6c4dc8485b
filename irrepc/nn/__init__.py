"""Layers of equivariant networks: graphs, neighbour lists, radial functions, and maps of steerable features."""
