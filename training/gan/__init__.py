"""Training the generator: recipes, data, losses, the loop and its figures (docs/gan-training.md)."""
