"""Silero for all calls of the process: their windows are looked at together, off the loop.

    call A   ....|-- window --|-- window --|....        a window is 32 ms; each call fills its own
    call B   .|-- window --|-- window --|....           at its own time
    runs     ^       ^       ^       ^       ^          every 10 ms: all that are full by then

One window alone costs 60 microseconds, in a run with sixteen others 32 each, on a thread and without the
interpreter's lock. The answer is there one frame later. With few calls that is not worth it: then each
window is looked at where it is filled, at once.

Silence is looked at like everything else. Sparing the network windows below -61 dBFS moved the edges of what
was said afterwards, even once it had been told of a second of them: its memory does not settle.

The network is Silero VAD 6 as faster-whisper brings it, made for one long recording: its windows are one
sequence. Two places of the file make them a batch of callers instead; see `_for_callers`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import onnxruntime

from engine.aio import Background
from engine.errors import WeightsError
from engine.media.frame import Samples

RATE = 16_000
STEP = 512
_CONTEXT = 64
"""Each window is preceded by the end of the one before it."""
WINDOW = _CONTEXT + STEP
HALF_STEP = STEP // 2
HALF_WINDOW = WINDOW // 2 + 3
"""A window at 8 kHz: doubling its rate eats three samples."""
ALONE = 8
"""Up to so many calls at once, windows do not wait for each other."""
GATHER_S = 0.010
LIMIT_S = 0.25
"""Windows of a call that wait longer than this are lost: a thread that is so late will not catch up."""

_WEIGHTS = "assets/silero_vad_v6.onnx"
_NO_MEMORY = np.zeros((1, 1, 128), dtype=np.float32)
_Floats = npt.NDArray[np.float32]


class Hearer:
    """One call's memory of the network, and its latest answer. `doubled`: its windows come at 8 kHz."""

    def __init__(self, *, doubled: bool) -> None:
        self.doubled = doubled
        self.probability = 0.0
        self.h = self.c = _NO_MEMORY
        self.waiting: deque[Samples] = deque(maxlen=round(LIMIT_S * RATE / STEP))
        self.busy = False
        """A window of it is being looked at."""


class SileroBatch:
    """The network, and the windows that wait for it. For use on one event loop."""

    def __init__(self) -> None:
        self._hearers: WeakSet[Hearer] = WeakSet()
        self._waiting: dict[Hearer, None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._tasks = Background()
        self.running = False
        """Windows wait, or are being looked at."""

    def load(self) -> None:
        """Read the weights now and not with the first call. Raises WeightsError."""
        _session()

    def join(self, *, doubled: bool) -> Hearer:
        """A new call. Raises WeightsError."""
        self.load()
        hearer = Hearer(doubled=doubled)
        self._hearers.add(hearer)
        return hearer

    def hear(self, hearer: Hearer, window: Samples) -> None:
        """Look at WINDOW samples, or HALF_WINDOW at 8 kHz; `hearer.probability` follows, now or soon.

        The windows of a call are looked at in their order.
        """
        if len(self._hearers) <= ALONE and not hearer.waiting and not hearer.busy:
            self._look({hearer: window})
            return
        hearer.waiting.append(window)
        self._waiting[hearer] = None
        if not self.running:
            self.running = True
            self._tasks.start(self._run(), name="vad")

    async def close(self) -> None:
        """Let the thread go. Answers that are awaited do not come."""
        await self._tasks.close()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_S)
                windows = {hearer: hearer.waiting.popleft() for hearer in self._waiting}
                self._waiting = {hearer: None for hearer in windows if hearer.waiting}
                for hearer in windows:
                    hearer.busy = True
                await loop.run_in_executor(self._thread, self._look, windows)
                for hearer in windows:
                    hearer.busy = False
        finally:
            self.running = False

    def _look(self, windows: Mapping[Hearer, Samples]) -> None:
        hearers: list[Hearer] = []
        sounds: list[_Floats] = []
        for doubled in (False, True):
            some = [hearer for hearer in windows if hearer.doubled is doubled]
            if some:
                sound = np.stack([windows[hearer] for hearer in some]).astype(np.float32)
                hearers += some
                sounds.append(_doubled(sound) if doubled else sound)
        inputs = {
            "input": np.concatenate(sounds) / np.float32(32768),
            "h": np.concatenate([hearer.h for hearer in hearers], axis=1),
            "c": np.concatenate([hearer.c for hearer in hearers], axis=1),
        }
        probabilities, h, c = _session().run(None, inputs)
        for index, (hearer, probability) in enumerate(
            zip(hearers, probabilities.tolist(), strict=True)
        ):
            hearer.h, hearer.c = h[:, index : index + 1], c[:, index : index + 1]
            hearer.probability = probability


def _doubled(sounds: _Floats) -> _Floats:
    """Twice the rate by cubic interpolation: rows of n samples become rows of 2 (n - 3)."""
    out = np.empty((len(sounds), 2 * sounds.shape[1] - 6), dtype=np.float32)
    out[:, 0::2] = sounds[:, 1:-2]
    out[:, 1::2] = (sounds[:, 1:-2] + sounds[:, 2:-1]) * np.float32(0.5625)
    out[:, 1::2] -= (sounds[:, :-3] + sounds[:, 3:]) * np.float32(0.0625)
    return out


@functools.cache
def _session() -> onnxruntime.InferenceSession:
    package = importlib.util.find_spec("faster_whisper")
    weights = Path(package.origin if package and package.origin else ".").parent / _WEIGHTS
    if not weights.is_file():
        raise _wrong_weights("faster-whisper brings no Silero weights")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The shapes of the outputs still say one caller, and each run would be warned about.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        _for_callers(weights.read_bytes()), options, providers=["CPUExecutionProvider"]
    )


def _for_callers(network: bytes) -> bytes:
    """The network with its windows side by side, where they were one after another. Raises WeightsError.

    The features of n windows reach the LSTM as (windows, 1, features): n steps of one sequence. Transposed
    the other way they are (1, windows, features): one step of n sequences, each with its own memory. Both
    changes keep the length of the file, so nothing else of it moves (onnx.proto: AttributeProto.ints is
    field 8, TensorShapeProto.Dimension has dim_value as field 1 and dim_param as field 2).
    """
    transposed = b"\x0a\x04perm\x40\x00\x40\x02\x40\x01", b"\x0a\x04perm\x40\x02\x40\x00\x40\x01"
    one_memory = b"\x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x03\x08\x80\x01"
    any_memories = b"\x0a\x02\x08\x01\x0a\x02\x12\x00\x0a\x03\x08\x80\x01"
    if network.count(transposed[0]) != 1 or one_memory not in network:
        raise _wrong_weights("faster-whisper brings another Silero than version 6")
    return network.replace(*transposed).replace(one_memory, any_memories)


def _wrong_weights(message: str) -> WeightsError:
    return WeightsError(
        message, how_to_fix=["install the pinned faster-whisper, or set models.vad to webrtc"]
    )
