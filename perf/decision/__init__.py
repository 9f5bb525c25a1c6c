"""What one choice of the learned policy costs: `python -m perf.decision`."""
