"""Directions of a generator trained on portraits: found, measured, and the faces that show them."""
