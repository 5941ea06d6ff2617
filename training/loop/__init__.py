"""What every training shares: run folder, steps and epochs, states, logs, precision, seeds, processes."""
