"""Side-by-side measurements, printed as ratios and medians: `python -m benchmarks [NAME ...]`."""
