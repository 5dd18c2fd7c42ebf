"""Streamware."""
