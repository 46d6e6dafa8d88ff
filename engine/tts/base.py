"""Voice: a sentence becomes sound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from engine.media.frame import Pcm


class TextToSpeech(Protocol):
    name: str

    def speak(self, text: str, *, voice: str, language: str) -> AsyncIterator[Pcm]:
        """Stream the sound of one sentence, at the model's own rate.

        `text` is written language; the adapter turns numbers, money and dates into words first
        (`tts.spoken`). Raises ModelError. Closing the iterator stops the work.
        """
        ...

    async def warm(self) -> None: ...

    async def close(self) -> None: ...
