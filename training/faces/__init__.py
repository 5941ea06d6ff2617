"""Stage `faces-set`: faces of a generator or of photographs, labeled by a teacher at its best."""
