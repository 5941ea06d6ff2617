"""Classes of a face's map (docs/parsing.md) and its size."""

SIZE = 224  # all windows of the documented algorithms are pixel numbers of a 224x224 map
BACKGROUND, LEFT_EYE, RIGHT_EYE, NOSE, UPPER_LIP, INNER_MOUTH, LOWER_LIP, HAIR = 0, 4, 5, 6, 7, 8, 9, 10
CLASSES = 11
