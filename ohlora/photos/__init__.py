"""Photographs: faces found, heads aligned, hair and classes of a face, edges."""
