"""From a shot and the frames an artist has painted of it to what a network learns: reading, checking, packing."""
