"""Face parsers as teachers, and the stage that runs one over a folder of pictures."""
