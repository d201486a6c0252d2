"""Drills: runs killed and damaged, readers fed ruins, as often as one likes (``make drills``).

The small tests beside them are for every day.
"""
