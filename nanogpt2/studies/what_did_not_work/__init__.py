"""Ideas that the records left out, as reported and as measured here. Chapter: what_did_not_work."""
