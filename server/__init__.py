"""The server: the Flower ServerApp, the conductor that runs a study, its journal and its reports."""
