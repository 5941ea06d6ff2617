"""What must be fast and is ours: one public function each, a readable reference and compiled forms behind it."""
