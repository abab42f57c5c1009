"""What goes on NUKE_PATH."""
