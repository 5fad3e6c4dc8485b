"""Layers of equivariant networks: graphs, neighbour lists, radial functions, and maps of steerable features."""

from irrepc.nn.contraction import SymmetricContraction
from irrepc.nn.convolution import Convolution
from irrepc.nn.frames import edge_frames
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, Index, batch, edge_vectors, graph_from_edges, index_of
from irrepc.nn.harmonics import SphericalHarmonics, WignerD
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.neighbours import SkinList, graph_of, graph_of_atoms, species_of
from irrepc.nn.norm import EquivariantLayerNorm
from irrepc.nn.radial import BesselBasis, GaussianBasis, ScalarMLP, cosine_cutoff, polynomial_cutoff
from irrepc.nn.tensor_product import (
    FullyConnectedTensorProduct,
    TensorProduct,
    elementwise_tensor_product,
    full_tensor_product,
)

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
    "SymmetricContraction",
    "TensorProduct",
    "WignerD",
    "batch",
    "cosine_cutoff",
    "edge_frames",
    "edge_vectors",
    "elementwise_tensor_product",
    "full_tensor_product",
    "graph_from_edges",
    "graph_of",
    "graph_of_atoms",
    "index_of",
    "polynomial_cutoff",
    "species_of",
]
