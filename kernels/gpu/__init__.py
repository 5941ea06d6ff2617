"""What all CUDA kernels share: arrays of any library, exact arithmetic, resizing."""
