"""Pretrained weights: reading files without running code, and the store they are kept in."""
