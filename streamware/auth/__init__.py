"""Who asks: verifying tokens, and what is known of a caller afterwards. Of HTTP messages only ``endpoints.py`` knows, of
streams nothing here does."""
