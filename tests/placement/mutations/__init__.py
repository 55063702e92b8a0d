"""Placement with one thing wrong in it: its tests must notice, or say why nobody could."""
