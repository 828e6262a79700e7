"""The whole system at work (section 1): strain, search, alerts, sky maps, cross-match and status, together."""
