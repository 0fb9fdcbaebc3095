"""Families that `trtk plan` counts and times, and nothing here converts: one file each, with FAMILY."""
