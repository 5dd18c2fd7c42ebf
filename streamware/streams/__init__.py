"""The heart: an app runs into a log, and connections read it."""
