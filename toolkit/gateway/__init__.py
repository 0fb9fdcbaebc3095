"""The OpenAI-compatible endpoint in front of Triton's gRPC: HTTP in, one Triton stream per request out."""
