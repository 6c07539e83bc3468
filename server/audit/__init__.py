"""Audit by attack: what an honest-but-curious server can work out about patients from everything it received.

The transcript is the attacker's material; each attack is a pure function of it. Attacks that work say so by a list of
candidate rows, which are compared with the patients where these are at hand. A list of attacks that found nothing is
no proof that none exists.
"""
