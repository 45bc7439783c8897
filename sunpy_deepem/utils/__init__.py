"""Helpers without knowledge of DEMs: argument checks, files, WCS, regions, library versions."""
