"""Models of data, composed of flows, encoders, decoders and quantizers."""

from vaeflow.models.dequantizer import Dequantized, UniformDequantizer, VariationalDequantizer
from vaeflow.models.flow_model import FlowModel

__all__ = ["Dequantized", "FlowModel", "UniformDequantizer", "VariationalDequantizer"]
