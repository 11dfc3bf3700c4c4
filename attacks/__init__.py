"""Attacks on a server of ours, each of which must fail. `python -m attacks` runs them; so does CI."""
