"""Choices made on validation data: operating points and calibration."""
