"""Choices made on validation: operating points and calibration."""
