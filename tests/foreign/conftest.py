"""Nothing here belongs to ``make test``: ``run.py`` runs the foreign suites, and ``make test-foreign`` calls it."""

collect_ignore_glob = ["*"]
