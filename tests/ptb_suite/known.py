"""Tests of PTB's that fail with our bot and not without, by a part of their names, each with the reason."""

_PTB_TYPE = "the test looks for an enum of PTB's in `media`; what went through the queue is JSON, with the same text"
_NUMBER = "the test gives a chat's number as text; it arrives as the number, which is the same chat for the Bot API"
_TIMEOUT = "the test gives a read_timeout; a call that is queued has SEND_TIMEOUT, whoever sends it"

KNOWN = {
    "test_message.py::TestMessageWithoutRequest::test_edit_media": _PTB_TYPE,
    "test_callbackquery.py::TestCallbackQueryWithoutRequest::test_edit_message_media[message]": _PTB_TYPE,
    "test_bot.py::TestBotWithoutRequest::test_copy_message": _NUMBER,
    "test_bot.py::TestBotWithoutRequest::test_timeout_propagation_explicit": _TIMEOUT,
}
