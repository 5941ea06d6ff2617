"""What a face is in numbers: latent spaces, directions that move it, expressions in words."""
