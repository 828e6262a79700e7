"""How records travel between processes (section 9): a SQLite log, Kafka, and VOEvents over TCP."""
