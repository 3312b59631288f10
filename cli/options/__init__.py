"""Groups of options, and the values into which they are parsed."""
