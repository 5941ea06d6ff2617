"""Network definitions, one architecture a file, under our own names."""
