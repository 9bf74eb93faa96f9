"""DICOM reader: files in, Image and header facts out. The doorway to pydicom."""
