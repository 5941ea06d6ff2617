"""Data sets and augmentation for the training stages."""

RESOLUTION = 256  # of portraits painted on the fly; as the reference faces
