"""The database: one schema for SQLite and PostgreSQL, one background writer, one module of statements."""
