"""Layers of equivariant networks: graphs, neighbour lists, radial functions, and maps of steerable features."""

from irrepc.nn.contraction import SymmetricContraction
from irrepc.nn.convolution import Convolution
from irrepc.nn.degree_norm import DegreeLayerNorm, DegreeRMSNorm, SeparateLayerNorm
from irrepc.nn.frames import edge_frames
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, Index, batch, edge_vectors, graph_from_edges, index_of
from irrepc.nn.harmonics import SphericalHarmonics, WignerD
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.neighbours import SkinList, graph_of, graph_of_atoms, species_of
from irrepc.nn.norm import EquivariantLayerNorm
from irrepc.nn.radial import BesselBasis, GaussianBasis, RadialMLP, ScalarMLP, cosine_cutoff, polynomial_cutoff
from irrepc.nn.radial_convolution import BasisConvolution, SplineConvolution
from irrepc.nn.s2_grid import OrderS2Activation, S2Grid
from irrepc.nn.so2 import FrameMatrices, OrderGate, Rotate, RotateBack, SO2Convolution
from irrepc.nn.so2_attention import SO2Attention
from irrepc.nn.so3_linear import SO3Linear
from irrepc.nn.tensor_product import (
    FullyConnectedTensorProduct,
    TensorProduct,
    elementwise_tensor_product,
    full_tensor_product,
)

__all__ = [
    "BasisConvolution",
    "BesselBasis",
    "Convolution",
    "DegreeLayerNorm",
    "DegreeRMSNorm",
    "EquivariantLayerNorm",
    "FrameMatrices",
    "FullyConnectedTensorProduct",
    "Gate",
    "GaussianBasis",
    "Graph",
    "Index",
    "Linear",
    "OrderGate",
    "OrderS2Activation",
    "RadialMLP",
    "Rotate",
    "RotateBack",
    "S2Grid",
    "SO2Attention",
    "SO2Convolution",
    "SO3Linear",
    "ScalarMLP",
    "SeparateLayerNorm",
    "SkinList",
    "SpeciesLinear",
    "SphericalHarmonics",
    "SplineConvolution",
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
