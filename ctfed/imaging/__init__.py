"""From CT to features. Knows nothing of federation; heavy libraries are imported inside the modules that need them."""
