"""One-off measurements, each a command of a checkout; they are not in the wheel."""
