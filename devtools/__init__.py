"""What the demo, the client tests, the benchmark and CI share. Not part of the product; needs nothing but Python."""
