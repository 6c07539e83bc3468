"""Studies of many models: groups of features prepared together, models searched, fitted and compared together."""
