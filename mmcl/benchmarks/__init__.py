"""Benchmarks: data, classes and their order. One module for each family."""
