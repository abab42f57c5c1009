"""The shot store: content-addressed analysis shared by every render of a shot."""
