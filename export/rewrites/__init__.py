"""Exact inference rewrites of PyTorch modules, by network and by name."""
