"""What a model is worth: bits per byte on held-out text, and CORE. Chapter: core."""
