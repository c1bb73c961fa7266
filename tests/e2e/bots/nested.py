"""Conversations within conversations, by buttons: a family, its members, their features; ends map to the parent."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    filters,
)

Context = ContextTypes.DEFAULT_TYPE

MENU, KIND, FEATURE, TYPING, SHOWING, STOPPING = map(str, range(6))
END = ConversationHandler.END
ADD, SHOW, FINISH, BACK, PARENT, CHILD, NAME, AGE = "add", "show", "finish", "back", "parent", "child", "name", "age"


def buttons(*rows: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[InlineKeyboardButton(word.capitalize(), callback_data=word)] for word in rows])


async def tell(update: Update, text: str, *rows: str) -> None:
    """Edits the message whose button was pressed, or sends one."""
    if update.callback_query:
        await update.callback_query.answer()
        await update.callback_query.edit_message_text(text, reply_markup=buttons(*rows))
    else:
        await update.message.reply_text(text, reply_markup=buttons(*rows))


async def menu(update: Update, context: Context) -> str:
    context.user_data.setdefault("family", [])
    await tell(update, f"The family has {len(context.user_data['family'])} members.", ADD, SHOW, FINISH)
    return MENU


async def kind(update: Update, context: Context) -> str:
    await tell(update, "Whom?", PARENT, CHILD, BACK)
    return KIND


async def feature(update: Update, context: Context) -> str:
    person = context.user_data.setdefault("person", {"kind": update.callback_query.data})
    await tell(update, f"The {person['kind']}'s?", NAME, AGE, BACK)
    return FEATURE


async def ask(update: Update, context: Context) -> str:
    context.user_data["feature"] = update.callback_query.data
    await update.callback_query.answer()
    await update.callback_query.edit_message_text(f"The {update.callback_query.data}, please.")
    return TYPING


async def keep(update: Update, context: Context) -> str:
    context.user_data["person"][context.user_data.pop("feature")] = update.message.text
    person = context.user_data["person"]
    await tell(update, f"The {person['kind']} has {len(person) - 1} features.", NAME, AGE, BACK)
    return FEATURE


async def person_done(update: Update, context: Context) -> str:
    context.user_data["family"].append(context.user_data.pop("person"))
    await menu(update, context)
    return END


async def back_to_menu(update: Update, context: Context) -> str:
    await menu(update, context)
    return END


async def show(update: Update, context: Context) -> str:
    family = "; ".join(
        f"{person['kind']} {person.get('name', '?')} ({person.get('age', '?')})"
        for person in context.user_data["family"]
    )
    await tell(update, f"The family: {family or 'nobody'}.", BACK)
    return SHOWING


async def finish(update: Update, context: Context) -> int:
    await update.callback_query.answer()
    await update.callback_query.edit_message_text("Finished.")
    context.user_data.clear()
    return END


async def stop(update: Update, context: Context) -> int:
    await update.message.reply_text("Stopped.")
    context.user_data.clear()
    return END


async def stop_nested(update: Update, context: Context) -> str:
    await stop(update, context)
    return STOPPING


def setup(application: Application) -> None:
    features = ConversationHandler(
        entry_points=[CallbackQueryHandler(feature, pattern=f"^({PARENT}|{CHILD})$")],
        states={
            FEATURE: [CallbackQueryHandler(ask, pattern=f"^({NAME}|{AGE})$")],
            TYPING: [MessageHandler(filters.TEXT & ~filters.COMMAND, keep)],
        },
        fallbacks=[
            CallbackQueryHandler(person_done, pattern=f"^{BACK}$"),
            CommandHandler("stop", stop_nested),
        ],
        map_to_parent={END: END, STOPPING: STOPPING},
    )
    members = ConversationHandler(
        entry_points=[CallbackQueryHandler(kind, pattern=f"^{ADD}$")],
        states={KIND: [features]},
        fallbacks=[
            CallbackQueryHandler(back_to_menu, pattern=f"^{BACK}$"),
            CommandHandler("stop", stop_nested),
        ],
        map_to_parent={END: MENU, STOPPING: END},
    )
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", menu)],
            states={
                MENU: [
                    members,
                    CallbackQueryHandler(show, pattern=f"^{SHOW}$"),
                    CallbackQueryHandler(finish, pattern=f"^{FINISH}$"),
                ],
                SHOWING: [CallbackQueryHandler(menu, pattern=f"^{BACK}$")],
                STOPPING: [CommandHandler("start", menu)],
            },
            fallbacks=[CommandHandler("stop", stop)],
        )
    )
