"""Durable trading signals on Supabase: publish, follow live and query."""

from signal_persistence.advance import (
    AdvanceVerdict,
    AsyncSignalLifecycle,
    SignalChange,
    SignalEvent,
)
from signal_persistence.async_subscriber import AsyncSubscriber
from signal_persistence.cache import AsyncSignalCache, CachedSignals, CacheStats, SignalCache
from signal_persistence.client import (
    Account,
    Allowance,
    ApiKey,
    NewApiKey,
    SignalClient,
    Trader,
)
from signal_persistence.coverage import Observation
from signal_persistence.credentials import (
    AccessToken,
    ApiKeyCredentials,
    Credentials,
    PasswordCredentials,
)
from signal_persistence.delivery import Delivery, DeliveryReport
from signal_persistence.errors import (
    AbandonedError,
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    BufferFullError,
    ChangeError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    DeliveryError,
    DeliveryTimeoutError,
    InvalidChangeError,
    InvalidQueryError,
    InvalidSignalError,
    InvalidTransitionError,
    ManagerFullError,
    PermissionDeniedError,
    RejectedError,
    RequestTimeoutError,
    SignalPersistenceError,
    SubscriptionError,
    TransportError,
    UnavailableError,
    UndeliveredError,
    UnknownSignalError,
    UnwrittenError,
)
from signal_persistence.export import ExportOptions, ExportProgress
from signal_persistence.ledger import ProducerStats
from signal_persistence.producer import AsyncProducer, Producer
from signal_persistence.query import AsyncSignalQuery, SignalQuery
from signal_persistence.reading import Page
from signal_persistence.signal import Outcome, Signal, StoredSignal
from signal_persistence.subscriber import Subscriber
from signal_persistence.subscription import StateReason, SubscriptionState

__all__ = [
    "AbandonedError",
    "AccessToken",
    "Account",
    "AdvanceVerdict",
    "Allowance",
    "ApiError",
    "ApiKey",
    "ApiKeyCredentials",
    "AsyncProducer",
    "AsyncSignalCache",
    "AsyncSignalLifecycle",
    "AsyncSignalQuery",
    "AsyncSubscriber",
    "AuthenticationError",
    "BatchTooLargeError",
    "BufferFullError",
    "CacheStats",
    "CachedSignals",
    "ChangeError",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "Credentials",
    "Delivery",
    "DeliveryError",
    "DeliveryReport",
    "DeliveryTimeoutError",
    "ExportOptions",
    "ExportProgress",
    "InvalidChangeError",
    "InvalidQueryError",
    "InvalidSignalError",
    "InvalidTransitionError",
    "ManagerFullError",
    "NewApiKey",
    "Observation",
    "Outcome",
    "Page",
    "PasswordCredentials",
    "PermissionDeniedError",
    "Producer",
    "ProducerStats",
    "RejectedError",
    "RequestTimeoutError",
    "Signal",
    "SignalCache",
    "SignalChange",
    "SignalClient",
    "SignalEvent",
    "SignalPersistenceError",
    "SignalQuery",
    "StateReason",
    "StoredSignal",
    "Subscriber",
    "SubscriptionError",
    "SubscriptionState",
    "Trader",
    "TransportError",
    "UnavailableError",
    "UndeliveredError",
    "UnknownSignalError",
    "UnwrittenError",
]
