"""The nouns made of tensors: a linear as it is stored, and a decoder layer of them. No arithmetic."""

from toolkit.weights.layer import Layer
from toolkit.weights.linear import Linear, columns, joined_columns, joined_rows, rows, split_rows
from toolkit.weights.model import Weights

__all__ = ["Layer", "Linear", "Weights", "columns", "joined_columns", "joined_rows", "rows", "split_rows"]
