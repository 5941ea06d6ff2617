"""Score CNNs in the documented pipeline: classifiers, filter, property and hairstyle CNN (docs/spec/cnn.md)."""
