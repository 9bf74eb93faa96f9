"""DICOM results of a scoring run: segmentations, reports, heat maps. The doorway to highdicom."""
