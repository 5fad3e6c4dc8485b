"""Layers of equivariant networks: graphs, neighbour lists, radial functions, and maps of steerable features."""

from irrepc.nn.convolution import Convolution
from irrepc.nn.frames import edge_frames
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, Index, batch, edge_vectors, graph_from_edges
from irrepc.nn.harmonics import SphericalHarmonics, WignerD
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.neighbours import SkinList, graph_of, graph_of_atoms, species_of
from irrepc.nn.norm import EquivariantLayerNorm
from irrepc.nn.radial import BesselBasis, GaussianBasis, ScalarMLP, cosine_cutoff, polynomial_cutoff
from irrepc.nn.tensor_product import FullyConnectedTensorProduct, TensorProduct

__all__ = [
    "BesselBasis",
    "Convolution",
    "EquivariantLayerNorm",
    "FullyConnectedTensorProduct",
    "Gate",
    "GaussianBasis",
    "Graph",
    "Index",
    "Linear",
    "ScalarMLP",
    "SkinList",
    "SpeciesLinear",
    "SphericalHarmonics",
    "TensorProduct",
    "WignerD",
    "batch",
    "cosine_cutoff",
    "edge_frames",
    "edge_vectors",
    "graph_from_edges",
    "graph_of",
    "graph_of_atoms",
    "polynomial_cutoff",
    "species_of",
]
