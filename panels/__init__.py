"""Qt widgets of the Faceplate panel: PySide6, no numpy, no torch."""
