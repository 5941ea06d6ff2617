"""The documented ways that speed is compared with."""
