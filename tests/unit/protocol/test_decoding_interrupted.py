"""Ctrl-C while a message is decoded is Ctrl-C, not a broken message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from taskd.errors import ProtocolError
from taskd.protocol import data, frames


def raises(error: BaseException) -> Callable[..., Any]:
    """What runs inside the decoder when the signal comes."""

    def callback(*_: Any) -> Any:
        raise error

    return callback


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupt_inside_the_decoder_comes_out_as_itself(
    monkeypatch: pytest.MonkeyPatch, interrupt: BaseException
) -> None:
    decoder = frames.Decoder()
    decoder.feed(frames.encode({"ok": {}}))
    monkeypatch.setattr(frames, "_check_keys", raises(interrupt))
    with pytest.raises(type(interrupt)):
        decoder.next()
    raw = data.encode(date(2026, 1, 2))
    monkeypatch.setattr(data, "_allowed_tags", {1004: raises(interrupt)})
    with pytest.raises(type(interrupt)):
        data.decode(raw)


def test_an_error_inside_the_decoder_is_still_the_messages_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = data.encode(date(2026, 1, 2))
    monkeypatch.setattr(data, "_allowed_tags", {1004: raises(ValueError("no such day"))})
    with pytest.raises(ProtocolError, match="no such day"):
        data.decode(raw)
