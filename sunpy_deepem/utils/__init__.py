"""Helpers that know nothing of DEMs: argument checks, files, WCS, library versions."""
