"""What every room builds on: value objects, files written whole or not at all."""
