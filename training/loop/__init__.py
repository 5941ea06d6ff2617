"""What all training loops share: devices and processes, random numbers by purpose."""
