"""Bundles built of checkpoints, part by part, updated, or brought to a preset."""
