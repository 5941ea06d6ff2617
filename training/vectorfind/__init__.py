"""VectorFind: latent directions for eyes, mouth and pose, found from scored samples (docs/spec/vectorfind.md)."""
