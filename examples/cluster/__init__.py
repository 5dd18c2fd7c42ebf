"""The chat on several workers: a Redis (``redis_server.py``), workers (``worker.py``) and a proxy in front of them
(``balancer.py``), started together by ``serve.py``."""
