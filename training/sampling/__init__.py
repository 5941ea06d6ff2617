"""Numbered pictures of a generator, as the documented data sets were made."""
