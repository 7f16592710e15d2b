"""Which events belong to a filter of signals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from signal_persistence.advance import SignalEvent
from signal_persistence.reading import SignalFilter

_ANY: Final = SignalFilter()


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events of the signals that a filter wants."""

    wanted: SignalFilter

    @property
    def needs_signal(self) -> bool:
        """Whether the signal itself is needed to tell, because an event does not say enough."""
        said = replace(self.wanted, traders=None, symbols=None, symbol_prefix=None, timeframes=None)
        return said != _ANY

    def matches(self, event: SignalEvent) -> bool | None:
        """Tell whether an event belongs to the filter; None when its signal has to be seen.

        An expiry belongs to every filter: it names signals of all kinds, by seq.
        """
        if event.signal is not None:
            return self.wanted.matches(event.signal)
        if event.expired_seqs is not None:
            return True
        wanted, symbol = self.wanted, event.symbol or ""
        about_it = (
            (wanted.traders is None or event.trader_id in wanted.traders)
            and (wanted.symbols is None or symbol in wanted.symbols)
            and (wanted.symbol_prefix is None or symbol.startswith(wanted.symbol_prefix))
            and (wanted.timeframes is None or event.timeframe in wanted.timeframes)
        )
        return about_it and (None if self.needs_signal else True)
