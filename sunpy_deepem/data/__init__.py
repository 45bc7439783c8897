"""Packaged tables and weights; see README.rst beside this file for where they come from."""
