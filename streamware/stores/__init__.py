"""Where logs live: the protocols, and one store a module."""
