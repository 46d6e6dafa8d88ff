"""What the operator sees: logs without personal data, health, and word to systemd."""
