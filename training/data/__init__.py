"""Data sets and augmentation for the training stages."""
