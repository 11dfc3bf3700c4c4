"""`make bench-torch`: what the first call of a compiled model costs on a fresh machine, by remote cache."""
