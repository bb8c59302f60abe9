"""What the benchmarks share: data, training, searches with their cost counted, measures, tables."""
