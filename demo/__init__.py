"""`make demo`: torch.compile cold, warm with Redis, and warm with Pilotlight."""
