"""Score CNNs in the documented pipeline: classifiers, filter, property and hairstyle CNN (spec: cnn)."""
