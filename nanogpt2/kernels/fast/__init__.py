"""The second storey: the same results as the definitions of this room, sooner or in less memory."""
