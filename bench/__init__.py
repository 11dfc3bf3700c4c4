"""`make bench`: the server beside redis-server, on this machine, in one run."""
