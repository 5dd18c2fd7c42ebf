"""Who asks: verifying tokens, and what is known of a caller afterwards. Only ``endpoints.py`` knows of HTTP messages,
and nothing here knows of streams."""
