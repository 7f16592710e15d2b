"""`SignalCache`: answers to what a worker asks again and again, kept in its memory."""

from signal_persistence.cache.answer import CachedSignals
from signal_persistence.cache.async_cache import AsyncSignalCache, CacheOptions
from signal_persistence.cache.blocking import SignalCache
from signal_persistence.cache.stats import CacheStats

__all__ = ["AsyncSignalCache", "CacheOptions", "CacheStats", "CachedSignals", "SignalCache"]
