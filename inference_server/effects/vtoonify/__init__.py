"""`vtoonify`: portrait stylisation by imported VToonify networks (arXiv 2209.11224)."""
