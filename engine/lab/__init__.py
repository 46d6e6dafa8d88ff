"""A real Asterisk and real SIP callers, for the demo, the benches and the integration tests."""
