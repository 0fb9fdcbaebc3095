"""Entries only: one module per entry."""
