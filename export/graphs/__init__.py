"""ONNX graphs: made of modules, written node by node, changed by exact passes, stored."""
