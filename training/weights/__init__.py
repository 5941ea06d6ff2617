"""Weights files: published names of every network, and strict loading."""
