"""The door for users of e3nn: `irrepc.e3nn.replace(module)` lets e3nn's modules compute with generated kernels."""

from irrepc.interop.e3nn_replace import Report, replace, report

__all__ = ["Report", "replace", "report"]
