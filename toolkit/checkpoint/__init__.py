"""Weights on disk: Hugging Face shards and checkpoints in, rank files and unified checkpoints out."""
