"""What each technique of the run is worth, measured on one small model. Chapter: ladder."""
