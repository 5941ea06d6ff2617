"""Cheap ends of the photographic generator, fitted on this machine to the network's own images."""
