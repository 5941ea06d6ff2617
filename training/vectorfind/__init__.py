"""VectorFind: latent directions for eyes, mouth and pose, found from scored samples (spec: vectorfind)."""
