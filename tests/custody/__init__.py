"""Custody under attack: killed controllers, the histories that each rule prevents, faults of everything around."""
