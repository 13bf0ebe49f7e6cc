"""Screens: they show plain values and set traits; no training here."""
