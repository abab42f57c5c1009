"""Faces in a shot: detection, landmarks, tracks, alignment, mattes."""
