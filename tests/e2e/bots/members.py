"""Who comes and goes: the chats that the bot is in, kept in bot_data, and greetings."""

from telegram import ChatMember, Update
from telegram.ext import Application, ChatMemberHandler, CommandHandler, ContextTypes

Context = ContextTypes.DEFAULT_TYPE

IN = {ChatMember.MEMBER, ChatMember.OWNER, ChatMember.ADMINISTRATOR}


async def note_chat(update: Update, context: Context) -> None:
    change, chat = update.my_chat_member, update.effective_chat
    kind = "users" if chat.type == "private" else "groups"
    known = context.bot_data.setdefault(kind, set())
    if change.new_chat_member.status in IN:
        known.add(chat.id)
    else:
        known.discard(chat.id)


async def show(update: Update, context: Context) -> None:
    users, groups = (sorted(context.bot_data.get(kind, ())) for kind in ("users", "groups"))
    await update.effective_message.reply_text(f"Users: {users}. Groups: {groups}.")


async def greet(update: Update, context: Context) -> None:
    change = update.chat_member
    was, is_ = (member.status in IN for member in (change.old_chat_member, change.new_chat_member))
    name = change.new_chat_member.user.mention_html()
    if is_ and not was:
        await update.effective_chat.send_message(f"{name} was added. Welcome!", parse_mode="HTML")
    elif was and not is_:
        await update.effective_chat.send_message(f"{name} is gone.", parse_mode="HTML")


def setup(application: Application) -> None:
    application.add_handler(ChatMemberHandler(note_chat, ChatMemberHandler.MY_CHAT_MEMBER))
    application.add_handler(ChatMemberHandler(greet, ChatMemberHandler.CHAT_MEMBER))
    application.add_handler(CommandHandler("show", show))
