"""Whisper through CTranslate2, with an encoder window no longer than the utterance needs.

Whisper was trained on windows of 30 s, and filling them with silence is most of the work for a caller
who says two seconds. The encoder takes shorter windows, so we give it the utterance and a few seconds of
padding. Now and then a short window makes the decoder loop; a looping result is recognised (its text
compresses too well, or it has more tokens than anybody can speak in that time) and decoded once more
with the full window.

Confidence is exp(mean log-probability of the tokens) × (1 − no-speech probability), so 0..1. A result
that still loops in the full window keeps a tenth of it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.inference.pool import Priority, Workers
from engine.media.frame import Pcm
from engine.media.logmel import HOP, RATE, Floats, log_mel, waveform
from engine.stt.base import Transcript
from engine.stt.hallucinations import is_hallucination

log = logging.getLogger(__name__)

LANE = "stt"
_FULL_S = 30.0
_FULL_FRAMES = 3000
_TAIL_FRAMES = 200
"""So much silence follows the longest utterance; with half of it a tenth more words are wrong."""
_SHORTEST_S = 0.1
_COMPRESSION = 2.0
_TOKENS_PER_S = 8.0
_SPARE_TOKENS = 10
"""Punctuation and the end mark: they cost no time to speak."""
_PROMPT_TOKENS = 100
_NO_SPEECH = 0.6
_UNSURE_LOGPROB = -1.0
_QUIET_DB = -50.0


@dataclass(frozen=True, slots=True)
class _Decoded:
    text: str
    logprob: float
    no_speech: float
    loops: bool


class FasterWhisper:
    """SpeechToText over one Whisper model, on the lane `stt`.

    On a processor the model waits for memory: two threads on one utterance take as long as one
    (docs/benchmarks.md). So each of the lane's threads works on an utterance of its own.
    """

    name = "faster-whisper"

    def __init__(
        self,
        folder: Path,
        workers: Workers,
        *,
        window_s: float = 10.0,
        threads: int = 1,
        at_once: int = 1,
        device: str = "cpu",
    ) -> None:
        """`folder` holds model.bin and its companions. The model is loaded by `warm` or the first call.

        `window_s` 0 means always the full window. `at_once`: the width of the lane; `threads` each. `device` is cpu or cuda.
        """
        self._folder = folder
        self._workers = workers
        self._window_s = window_s
        self._threads = threads
        self._at_once = at_once
        self._loading = threading.Lock()
        self._device = device
        self._model: Any = None
        self._tokenizers: dict[str, Any] = {}

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
        priority: int = Priority.TURN,
    ) -> Transcript:
        """See SpeechToText. Of sound longer than 30 s the last 30 s are read."""
        started = time.perf_counter()
        transcript = await self._workers.run(
            LANE, self._transcribe, audio, language, languages, prompt, started, priority=priority
        )
        log.debug(
            "speech recognised",
            extra={
                "took_ms": round(transcript.took_ms),
                "seconds": round(transcript.seconds, 2),
                "confidence": round(transcript.confidence, 2),
                "language": transcript.language,
            },
        )
        return transcript

    async def warm(self) -> None:
        await self._workers.run(LANE, self._warm, priority=Priority.BACKGROUND)

    async def close(self) -> None:
        """The lane belongs to the Workers; here only the model is let go."""
        self._model = None

    # --- On the lane's thread --------------------------------------------------------------------

    def _warm(self) -> None:
        model = self._load()
        encoded = self._encode(model, np.zeros(RATE, dtype=np.float32), self._window_s <= 0)
        self._decode(model, encoded, "en", "", 1.0)

    def _transcribe(
        self,
        audio: Pcm,
        language: str | None,
        languages: tuple[str, ...],
        prompt: str,
        started: float,
    ) -> Transcript:
        wave = waveform(audio)[-round(_FULL_S * RATE) :]
        seconds = len(wave) / RATE
        first = language or (languages[0] if languages else "en")
        if seconds < _SHORTEST_S or _loudness_db(wave) < -75.0:
            return Transcript("", first, 0.0, 1.0, audio.seconds, _since(started))
        try:
            model = self._load()
            full = self._window_s <= 0
            encoded = self._encode(model, wave, full)
            spoken = language or self._language(model, encoded, languages)
            decoded = self._decode(model, encoded, spoken, prompt, seconds)
            if decoded.loops and not full:
                log.info("short window looped; decoding with the full one")
                encoded = self._encode(model, wave, full=True)
                decoded = self._decode(model, encoded, spoken, prompt, seconds)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"Whisper failed: {error}") from error
        text = decoded.text
        confidence = math.exp(min(0.0, decoded.logprob)) * (1.0 - decoded.no_speech)
        if decoded.loops:
            confidence *= 0.1
        silent = decoded.no_speech > _NO_SPEECH and decoded.logprob < _UNSURE_LOGPROB
        quiet = decoded.no_speech > 0.3 or _loudness_db(wave) < _QUIET_DB
        if silent or (quiet and is_hallucination(text)):
            text, confidence = "", 0.0
        return Transcript(
            text, spoken, confidence, decoded.no_speech, audio.seconds, _since(started)
        )

    def _load(self) -> Any:
        with self._loading:
            if self._model is None:
                # Imported here, on the thread: it takes half a second.
                from faster_whisper import WhisperModel

                self._model = WhisperModel(
                    str(self._folder),
                    device=self._device,
                    compute_type="int8" if self._device == "cpu" else "int8_float16",
                    cpu_threads=self._threads,
                    num_workers=self._at_once,
                    local_files_only=True,
                )
            return self._model

    def _encode(self, model: Any, wave: Floats, full: bool) -> Any:
        """The encoder's output for the waveform and its padding."""
        features = log_mel(
            np.pad(wave, (0, HOP)), mels=int(model.feat_kwargs.get("feature_size", 80))
        )
        frames = features.shape[1]
        wanted = _FULL_FRAMES
        if not full:
            wanted = max(round(self._window_s * RATE / HOP), frames + _TAIL_FRAMES)
        # Two frames become one position, so the number must be even.
        wanted = min(_FULL_FRAMES, wanted + wanted % 2)
        features = features[:, :wanted]
        # Padded with what silence looks like, as in training; a zero is sound in this scale. On 40 English
        # prompts that made fewer errors in every window but the shortest; on 40 Russian ones it varied.
        silence = features.min()
        short = ((0, 0), (0, wanted - features.shape[1]))
        return model.encode(np.pad(features, short, constant_values=silence))

    def _language(self, model: Any, encoded: Any, languages: tuple[str, ...]) -> str:
        """The likeliest language among those the agent speaks."""
        if len(languages) == 1 or not model.model.is_multilingual:
            return languages[0] if languages else "en"
        ranked: list[tuple[str, float]] = model.model.detect_language(encoded)[0]
        for token, _ in ranked:
            code = token.strip("<|>")
            if not languages or code in languages:
                return code
        return languages[0]

    def _decode(
        self, model: Any, encoded: Any, language: str, prompt: str, seconds: float
    ) -> _Decoded:
        tokenizer, suppressed = self._tokenizer(model, language)
        start: list[int] = []
        if prompt:
            start = [
                tokenizer.sot_prev,
                *tokenizer.encode(" " + prompt.strip())[-_PROMPT_TOKENS:],
            ]
        start += [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        room = min(224, int(seconds * _TOKENS_PER_S) + _SPARE_TOKENS)
        result = model.model.generate(
            encoded,
            [start],
            beam_size=1,
            max_length=len(start) + room,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=suppressed,
        )[0]
        tokens = result.sequences_ids[0]
        text: str = tokenizer.decode(tokens).strip()
        # The score is the mean over the tokens; with the end mark there is one more.
        logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        loops = len(tokens) >= room or _compression(text) > _COMPRESSION
        return _Decoded(text, logprob, result.no_speech_prob, loops)

    def _tokenizer(self, model: Any, language: str) -> tuple[Any, list[int]]:
        if language not in self._tokenizers:
            from faster_whisper.tokenizer import Tokenizer
            from faster_whisper.transcribe import get_suppressed_tokens

            tokenizer = Tokenizer(
                model.hf_tokenizer,
                model.model.is_multilingual,
                task="transcribe",
                language=language,
            )
            self._tokenizers[language] = (tokenizer, list(get_suppressed_tokens(tokenizer, [-1])))
        found: tuple[Any, list[int]] = self._tokenizers[language]
        return found


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _loudness_db(wave: Floats) -> float:
    """The loudest tenth of a second, in dB below full scale."""
    size = RATE // 10
    whole = wave[: max(size, len(wave) // size * size)]
    if len(whole) < size:
        whole = np.pad(whole, (0, size - len(whole)))
    power = float((whole.reshape(-1, size) ** 2).mean(axis=1).max())
    return 10 * math.log10(power + 1e-12)


def _compression(text: str) -> float:
    """How well the text compresses. Below 2 for speech, above for a loop; short text never loops."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
