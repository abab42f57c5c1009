"""`retouch`: attribute directions by landmark warps and frequency separation, built in."""
