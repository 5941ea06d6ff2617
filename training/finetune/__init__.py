"""The documented fine-tuning recipes v1 to v9: recipes as data, one GAN loop, one conditional-VAE loop."""
