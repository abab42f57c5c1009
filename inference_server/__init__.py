"""Everything that needs torch, OpenImageIO or numpy: the Faceplate server."""
