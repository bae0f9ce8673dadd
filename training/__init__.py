"""Battles in, artefact out: train, calibrate, evaluate and export what the scorer service serves."""
