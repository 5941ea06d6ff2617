"""The networks of a bundle as trainable modules, for those who have no checkpoint."""
