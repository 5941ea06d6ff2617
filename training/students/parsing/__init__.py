"""The student that finds all eleven classes of a face."""
