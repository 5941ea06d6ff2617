"""Choosing faces in the browser: `report` reads a run, `store` keeps the decisions, `tables` writes those kept."""
