"""Offhook: an AI on the telephone for people who run Asterisk.

The sound flows downward: telephony -> media -> turns -> stt -> dialog -> tts -> playback.
`calls.session` joins them for one call; `app` composes the process.
"""

__version__ = "0.1.0"
