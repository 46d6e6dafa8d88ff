"""The panel and the REST API. What is here now: liveness, readiness and the live call list."""
