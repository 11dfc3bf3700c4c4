"""`make bench-herd`: what processes cost together that compile the same model at the same time."""
