"""Placement held to its reference by many random cases, and its tests held to it by mutants."""
