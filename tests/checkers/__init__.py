"""Pure checkers: a history of what happened in, the anomalies in it out."""
