"""Hair zoo: any encoder and decoder of segmentation_models_pytorch, trained on hair masks (docs/hairzoo.md)."""
