"""DICOM files in, Image and header facts out: the doorway to pydicom."""
