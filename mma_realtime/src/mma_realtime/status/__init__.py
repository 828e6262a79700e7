"""The status service (section 13): what the system does now, for a person, for Prometheus, and as JSON; read-only."""
