"""trtk: from Hugging Face weights to a measured, costed, running Triton service."""

__version__ = "0.1.0"
