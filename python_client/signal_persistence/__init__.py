"""Durable trading signals on Supabase: publish, follow live and query."""

from signal_persistence.advance import (
    AdvanceVerdict,
    AsyncSignalLifecycle,
    SignalChange,
    SignalEvent,
)
from signal_persistence.async_subscriber import AsyncSubscriber
from signal_persistence.client import Account, Allowance, SignalClient, Trader
from signal_persistence.credentials import AccessToken, Credentials, PasswordCredentials
from signal_persistence.delivery import Delivery, DeliveryReport
from signal_persistence.errors import (
    AbandonedError,
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    BufferFullError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    DeliveryError,
    DeliveryTimeoutError,
    ForkedProducerError,
    InvalidQueryError,
    InvalidSignalError,
    PermissionDeniedError,
    RejectedError,
    RequestTimeoutError,
    SignalPersistenceError,
    SubscriptionError,
    TransportError,
    UnavailableError,
    UndeliveredError,
)
from signal_persistence.ledger import ProducerStats
from signal_persistence.producer import AsyncProducer, Producer
from signal_persistence.query import AsyncSignalQuery, SignalQuery
from signal_persistence.reading import Page
from signal_persistence.signal import Outcome, Signal, StoredSignal
from signal_persistence.subscriber import Subscriber
from signal_persistence.subscription import Observation, SubscriptionState

__all__ = [
    "AbandonedError",
    "AccessToken",
    "Account",
    "AdvanceVerdict",
    "Allowance",
    "ApiError",
    "AsyncProducer",
    "AsyncSignalLifecycle",
    "AsyncSignalQuery",
    "AsyncSubscriber",
    "AuthenticationError",
    "BatchTooLargeError",
    "BufferFullError",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "Credentials",
    "Delivery",
    "DeliveryError",
    "DeliveryReport",
    "DeliveryTimeoutError",
    "ForkedProducerError",
    "InvalidQueryError",
    "InvalidSignalError",
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
    "SignalChange",
    "SignalClient",
    "SignalEvent",
    "SignalPersistenceError",
    "SignalQuery",
    "StoredSignal",
    "Subscriber",
    "SubscriptionError",
    "SubscriptionState",
    "Trader",
    "TransportError",
    "UnavailableError",
    "UndeliveredError",
]
