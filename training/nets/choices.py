"""What recipes choose of the networks, apart from these: recipes are read without PyTorch."""

from __future__ import annotations

STUDENT_SIZE = 224  # pixels a side
DOCUMENTED_ENCODER = "tf_efficientnet_b0"
SHIPPED_ENCODER = "tf_efficientnet_lite0"
ATTRIBUTES = ("gender", "quality", "age", "glass")  # of the classifiers
MAX_WIDTH = 8.0  # of a score CNN, 1 being the documented network
