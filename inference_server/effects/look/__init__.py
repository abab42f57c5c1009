"""`look`: analytic portrait styles, built in."""
