"""An OpenAI-compatible chat that knows nothing of Streamware (``app.py``), and what wraps it (``serve.py``)."""
