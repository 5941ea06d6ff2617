"""Labelling by hand in the browser: `store` keeps the labels, `server` serves the page of the other files here."""
