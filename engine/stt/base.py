"""Hearing: a stretch of the caller's speech becomes a transcript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.media.frame import Pcm


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was understood.

    `confidence` is 0..1 (from log-probabilities and the no-speech probability); an empty `text` means
    that nobody spoke. `language` is a two-letter code.
    """

    text: str
    language: str
    confidence: float
    no_speech: float = 0.0
    seconds: float = 0.0
    """Length of the sound, in seconds."""
    took_ms: float = 0.0


class SpeechToText(Protocol):
    name: str

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
    ) -> Transcript:
        """Transcribe one utterance of any rate.

        `language` None means: detect, among `languages` where given. Raises ModelError. Cancelling is
        safe at any moment.
        """
        ...

    async def warm(self) -> None:
        """Run once, so that the first caller does not pay for it."""
        ...

    async def close(self) -> None: ...
