"""The attacks, one kind a file. Each is a function of what the attacker holds; none looks at the patients."""
