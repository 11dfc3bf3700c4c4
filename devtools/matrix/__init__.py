"""Which torch works with the plug-in and the server, tried out: `make matrix`."""
