"""Reference data made with the upstream models; see README.md here."""
