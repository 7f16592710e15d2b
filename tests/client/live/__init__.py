"""Live delivery: the shared scenarios, the machine behind them, and faults of every kind."""
