"""Who asks: verifying tokens, and what is known of a caller afterwards. Knows nothing of HTTP messages or streams."""
