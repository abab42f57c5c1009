"""Nuke and Resolve as Faceplate sees them: one protocol, and what each host adds. No host module is imported here."""
