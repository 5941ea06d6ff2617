"""Pages in the browser for one person: labelling pictures, choosing faces."""
