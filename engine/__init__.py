"""Offhook: an AI on the telephone for people who run Asterisk.

The sound flows downward: telephony -> media -> turns -> stt -> dialog -> tts -> playback.
`calls.session` joins them for one call; `app` composes the process.
"""

import os

# OpenMP's threads spin where they meet. When anybody else holds a core that costs seconds: in short runs on
# 2 shared cores a prompt of 24 tokens took up to 10 s, and up to 0.3 s with this value, while decoding alone
# kept 55 of 57 tokens/s. libgomp reads it once, when llama.cpp or CTranslate2 loads it; only here is surely
# before both. An operator's value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
