"""The machinery of a run: what is measured, timing in turn, records, reports."""
