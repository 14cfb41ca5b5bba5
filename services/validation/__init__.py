"""How good published values are: metrics and reports."""
