"""Networks re-implemented from papers and published facts; each module reads next to its paper."""
