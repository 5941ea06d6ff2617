"""Pictures, animations and videos as files: read, written, laid on a sheet."""
