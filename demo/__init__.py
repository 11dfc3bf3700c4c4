"""`make demo`: stock torch.compile, cold and warm, against a Pilotlight server."""
