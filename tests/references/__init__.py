"""Networks and losses in NumPy float64, which the tests compare the package with."""
