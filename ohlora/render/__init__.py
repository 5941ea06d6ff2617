"""Rendering in bulk: what is asked, what must be computed, where it goes."""
