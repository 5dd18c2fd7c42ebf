"""Apps that know nothing of Streamware, and what wrapping them takes."""
