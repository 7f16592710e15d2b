"""The demonstration: real strategies on real market data, through the whole system."""
