"""Benchmarks: what this project measures, side by side with a peer in the same run."""
