"""torch -> ONNX: exact rewrites, export, parity, bundle building. Needs the train extra."""
