"""Bridges to other packages: their weights, their file formats and their calculators."""
