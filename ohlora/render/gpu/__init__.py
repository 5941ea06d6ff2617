"""Rendering on CUDA devices: from latent to dyed bytes without leaving the device."""
