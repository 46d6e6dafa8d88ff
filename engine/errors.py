"""The exception tree and the error catalogue.

The class says whose fault it is; `retryable` says whether the same call may work later; `how_to_fix`
is written for the person who reads it in a terminal or in the panel.
"""

from __future__ import annotations

from collections.abc import Sequence


class OffhookError(Exception):
    """Base of everything this project raises on purpose.

    `code` is stable and upper-case; `how_to_fix` are steps a person can take.
    """

    code = "INTERNAL"
    retryable = False

    def __init__(self, message: str, *, how_to_fix: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.how_to_fix = tuple(how_to_fix)


class ConfigError(OffhookError):
    """The operator's settings or agent file are wrong."""

    code = "CONFIG_INVALID"


class ProtocolError(OffhookError):
    """A peer and we disagree about the wire."""

    code = "PROTOCOL"


class RemoteProtocolError(ProtocolError):
    """The peer sent what its protocol does not allow."""

    code = "PROTOCOL_REMOTE"


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol does not allow: a bug of ours."""

    code = "PROTOCOL_LOCAL"


class AsteriskError(OffhookError):
    """Asterisk could not be reached or refused."""

    code = "ASTERISK"
    retryable = True


class AmiUnavailable(AsteriskError):
    """There is no AMI link now; the action was not sent, or its answer was lost."""

    code = "AMI_UNAVAILABLE"


class AmiRefused(AsteriskError):
    """Asterisk answered `Response: Error`."""

    code = "AMI_REFUSED"
    retryable = False


class LegClosed(OffhookError):
    """The line is gone; nothing more can be sent."""

    code = "LEG_CLOSED"


class ModelError(OffhookError):
    """A model raised, stalled or produced nothing usable."""

    code = "MODEL_FAILED"
    retryable = True


class ModelTimeout(ModelError):
    """A model did not answer within its deadline."""

    code = "MODEL_TIMEOUT"


class WeightsError(OffhookError):
    """A weight is missing or its bytes are not the pinned ones. Raised at start, never in a call."""

    code = "WEIGHTS"


class ToolError(OffhookError):
    """A tool refused its arguments or failed; the text goes back to the language model."""

    code = "TOOL_FAILED"


class AtCapacity(OffhookError):
    """No room for one more call."""

    code = "AT_CAPACITY"
    retryable = True


class StorageError(OffhookError):
    """The database could not be read or written."""

    code = "STORAGE"
    retryable = True
