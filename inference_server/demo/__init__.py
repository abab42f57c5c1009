"""`faceplate demo`: a portrait plate made on the spot, rendered through the real server, and checked."""
