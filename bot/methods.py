"""Which method of the Bot API goes which way, decided by its name.

DIRECT:  called at once, outside the queue: what asks for data, what answers a query, what is about the bot itself or a
         file of it, and sendChatAction, which is worth nothing later.
DERIVED: queued, and its result told without Telegram: text, edits, deletes, pins.
AWAITED: queued, and its real result waited for: everything else that is for a chat.

A method that is not known yet is AWAITED if it names a chat. DERIVED and AWAITED ones that name none (inline messages)
are called at once, since there is no lane for them.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final


class Way(Enum):
    """How a call reaches Telegram."""

    DIRECT = auto()
    DERIVED = auto()
    AWAITED = auto()


EDITS: Final = frozenset({"editMessageText", "editMessageCaption", "editMessageReplyMarkup"})

_DERIVED = EDITS | {
    "sendMessage",
    "deleteMessage",
    "deleteMessages",
    "pinChatMessage",
    "unpinChatMessage",
    "unpinAllChatMessages",
}
_DIRECT_OF_A_CHAT = frozenset(
    {
        "createChatInviteLink",
        "createChatSubscriptionInviteLink",
        "editChatInviteLink",
        "editChatSubscriptionInviteLink",
        "exportChatInviteLink",
        "revokeChatInviteLink",
        "sendChatAction",
        "setChatMenuButton",
        "stopPoll",
    }
)
_DIRECT_VERBS = ("get", "answer")
_ABOUT_NO_CHAT = frozenset(
    {
        "addStickerToSet",
        "close",
        "convertGiftToStars",
        "createInvoiceLink",
        "createNewStickerSet",
        "deleteBusinessMessages",
        "deleteMyCommands",
        "deleteStickerFromSet",
        "deleteStickerSet",
        "deleteStory",
        "deleteWebhook",
        "editStory",
        "editUserStarSubscription",
        "giftPremiumSubscription",
        "logOut",
        "postStory",
        "refundStarPayment",
        "removeBusinessAccountProfilePhoto",
        "removeMyProfilePhoto",
        "removeUserVerification",
        "replaceManagedBotToken",
        "replaceStickerInSet",
        "repostStory",
        "savePreparedInlineMessage",
        "savePreparedKeyboardButton",
        "setBusinessAccountBio",
        "setBusinessAccountGiftSettings",
        "setBusinessAccountName",
        "setBusinessAccountProfilePhoto",
        "setBusinessAccountUsername",
        "setCustomEmojiStickerSetThumbnail",
        "setManagedBotAccessSettings",
        "setMyCommands",
        "setMyDefaultAdministratorRights",
        "setMyDescription",
        "setMyName",
        "setMyProfilePhoto",
        "setMyShortDescription",
        "setPassportDataErrors",
        "setStickerEmojiList",
        "setStickerKeywords",
        "setStickerMaskPosition",
        "setStickerPositionInSet",
        "setStickerSetThumbnail",
        "setStickerSetTitle",
        "setUserEmojiStatus",
        "setWebhook",
        "transferBusinessAccountStars",
        "transferGift",
        "upgradeGift",
        "uploadStickerFile",
        "verifyUser",
    }
)


def way_of(method: str) -> Way:
    """The way of a method, by its name."""
    if method in _DERIVED:
        return Way.DERIVED
    if method in _DIRECT_OF_A_CHAT or method in _ABOUT_NO_CHAT or method.startswith(_DIRECT_VERBS):
        return Way.DIRECT
    return Way.AWAITED


def way_of_call(method: str, parameters: Mapping[str, Any]) -> Way:
    """The way of a call with these parameters."""
    return Way.DIRECT if parameters.get("chat_id") is None else way_of(method)
