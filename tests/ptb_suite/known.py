"""Tests of PTB's that fail with our bot and not without, by a part of their names, each with the reason."""

_PTB_TYPE = "the test looks for an enum of PTB's in `media`; what went through the queue is JSON, with the same text"

KNOWN = {
    "test_message.py::TestMessageWithoutRequest::test_edit_media": _PTB_TYPE,
    "test_callbackquery.py::TestCallbackQueryWithoutRequest::test_edit_message_media[message]": _PTB_TYPE,
}
