"""Alerts (section 9): superevents, notices, VOEvents, and the store that lets each be told exactly once."""
