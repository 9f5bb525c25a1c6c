"""Measurements, one package per question; each writes its results as data."""
