"""Style collections before they are trained on: pictures by hand become aligned pictures of one size."""
