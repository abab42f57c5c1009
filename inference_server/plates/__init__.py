"""Plates: sequences, image files, colour and the composite."""
