"""How loss follows from size, tokens, batch and width, measured small. Chapter: scaling_laws."""
